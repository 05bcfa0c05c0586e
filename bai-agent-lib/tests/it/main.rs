//! Integration tests of the agent.

mod crash;
#[cfg(feature = "docker")]
mod docker;
mod process;
mod reports;
mod rpc;
mod simulated;
mod support;
