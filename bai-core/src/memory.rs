//! In-memory implementations of the ports: for tests, simulation and a cluster in one process.

mod config;
mod counter;
mod events;
mod lease;
pub mod store;

pub use config::MemoryConfig;
pub use counter::MemoryCounter;
pub use events::MemoryEvents;
pub use lease::MemoryLease;
pub use store::MemoryStore;
