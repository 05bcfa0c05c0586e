//! The roles of a cluster of several processes, for the daemons: what each is configured with, and how it is composed.

#[cfg(feature = "cluster")]
mod agent;
#[cfg(feature = "cluster")]
mod manager;

#[cfg(feature = "cluster")]
pub use agent::{AgentConfig, AgentRole};
#[cfg(feature = "cluster")]
pub use manager::{ManagerConfig, ManagerRole};
