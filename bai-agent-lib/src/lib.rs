//! The node: kernel life cycle, back ends, compute plugins, statistics.
//!
//! ```text
//!   manager ──AgentApi──▶ Agent ──KernelBackend──▶ sandbox, container      (starts and ends)
//!           ◀─ManagerApi─   │   ──Runner─────────▶ bai-krunner inside      (runs code)
//!                           ├── StateStore         one record per kernel, written before each effect
//!                           └── ComputePlugin      devices, allocation, limits
//! ```
//!
//! An [`Agent`] is built from [`AgentOptions`], a back end and the manager to report to. It implements
//! [`bai_core::port::AgentApi`]; `bai-rpc` carries that between processes.

mod agent;
pub mod backend;
pub mod cgroup;
mod files;
mod kernel;
mod log;
mod options;
pub mod plugin;
mod ports;
mod run;
pub mod runner;
mod scratch;
pub mod state;
pub mod stats;
#[cfg(test)]
mod testing;

pub use agent::{Agent, AgentBuilder};
pub use bai_scheduler::device::AffinityPolicy;
pub use options::AgentOptions;
