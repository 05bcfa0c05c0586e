//! Integration tests of the manager.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod chaos;
mod creation;
mod failure;
mod gateway;
mod groups;
mod idle;
mod life;
mod order;
mod pending;
mod preemption;
mod restart;
mod waiting;
mod world;
