//! The control plane: services on top of the ports, reconcilers that drive sessions to what the store says, and the
//! HTTP gateway that clients speak to.
//!
//! ```text
//!   gateway (REST, GraphQL, SSE, WebSocket)
//!      │ Scope (who asks, for whom)
//!      ▼
//!   SessionService · IdentityService · ImageService · AgentService
//!      │ guarded commits            ▲ reports (ManagerApi)
//!      ▼                            │
//!   stores ◄── reconcilers ──► agents (AgentApi)
//! ```

pub mod agent;
pub mod gateway;
pub mod identity;
pub mod idle;
pub mod image;
pub mod manager;
pub mod reconcile;
mod scheduling;
pub mod session;

pub use identity::{IdentityService, Scope};
pub use manager::{Backends, Manager, ManagerOptions};
pub use session::SessionService;
