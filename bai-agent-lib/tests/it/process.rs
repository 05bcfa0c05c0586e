//! The process back end with real sandboxes and the real runner, as root and as a normal user.
#![allow(clippy::unwrap_used)] // helpers of tests

mod agent;
mod client;
mod cluster;
mod conformance;
mod ending;
mod hostile;
mod kernel;
mod lifecycle;
mod rootless;
mod sandbox;
