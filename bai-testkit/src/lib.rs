//! Conformance suites: what every implementation of a port must do, one case for each promise in the port's
//! documentation.
//!
//! A case is an `async fn` over `Arc<dyn Port>`; a macro per suite makes one test of each. What the macro takes is the
//! path of an `async fn() -> Option<Subject<dyn Port>>` that sets up a fresh, isolated implementation, or says `None` when the
//! service it needs is not there (see [`service_url`]):
//!
//! ```
//! mod counter {
//!     async fn fresh() -> Option<bai_testkit::Subject<dyn bai_core::port::Counter>> {
//!         Some(bai_testkit::Subject::new(std::sync::Arc::new(bai_core::memory::MemoryCounter::new())))
//!     }
//!     bai_testkit::counter_conformance!(fresh);
//! }
//! ```
//!
//! [`simulation`] is the other half: a whole cluster of simulated agents in virtual time, whose every move follows from a seed.

#![allow(
    missing_docs,
    clippy::assigning_clones,
    clippy::unused_async, // every case is async, whatever it awaits
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::print_stderr
)]

mod subject;

pub mod agent_api;
pub mod agent_store;
pub mod config_store;
pub mod counter;
pub mod events;
pub mod fixture;
pub mod identity_store;
pub mod image_store;
pub mod kernel_backend;
pub mod lease;
pub mod log_store;
pub mod session_store;
pub mod simulation;

pub use subject::{Subject, service_url};
