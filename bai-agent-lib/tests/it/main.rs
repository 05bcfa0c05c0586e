//! Integration tests of the agent.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::duplicate_mod)] // the Docker tests use the client of the process tests

mod cluster;
mod crash;
mod devices;
#[cfg(feature = "docker")]
mod docker;
mod process;
mod reports;
mod rpc;
mod simulated;
mod support;
