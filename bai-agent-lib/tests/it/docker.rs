//! The Docker back end with a real engine, the test images and the real runner. `BAI_TEST_DOCKER_HOST` names the engine.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests

#[path = "process/client.rs"]
mod client;
mod cluster;
mod conformance;
mod engine;
mod hostile;
mod image;
mod kernel;
mod lifecycle;
mod registry;
mod swarm;
