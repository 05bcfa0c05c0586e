//! The node: kernel life cycle, back ends, compute plugins, statistics.

pub mod backend;
pub mod cgroup;
pub mod stats;
