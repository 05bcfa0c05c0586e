//! Integration tests of the agent.

mod process;

#[cfg(feature = "docker")]
mod docker;
