//! The runner as a process, with real interpreters, spoken to over its socket.

// A failed expectation is a failed test, in helper functions too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation
)]

mod batch;
mod compiled;
mod connection;
mod harness;
mod images;
mod node;
mod output;
mod python;
mod rich;
