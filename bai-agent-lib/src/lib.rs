//! The node: kernel life cycle, back ends, compute plugins, statistics.

pub mod backend;
pub mod cgroup;
mod files;
mod log;
mod options;
pub mod plugin;
mod ports;
mod run;
pub mod runner;
pub mod state;
pub mod stats;
#[cfg(test)]
mod testing;

pub use options::AgentOptions;
