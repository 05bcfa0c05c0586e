//! The ports: traits between the libraries and their back ends.
//!
//! Each has an implementation in [`crate::memory`] and one conformance suite in `bai-testkit` that every
//! implementation passes. A sentence in a doc comment here is a promise with a test.

pub mod agent;
pub mod backend;
pub mod cluster;
pub mod config;
pub mod counter;
pub mod events;
pub mod lease;
pub mod store;

pub use agent::{AgentApi, AgentReport, ManagerApi};
pub use backend::KernelBackend;
pub use config::ConfigStore;
pub use counter::Counter;
pub use events::Events;
pub use lease::Lease;
pub use store::{AgentStore, IdentityStore, ImageStore, LogStore, SessionStore};
