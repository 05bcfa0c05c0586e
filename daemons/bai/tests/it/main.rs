//! The programs as they are run: real processes, killed and restarted, seen only through the API and what they leave on
//! the host.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::print_stderr
)]

mod backend;
mod cluster;
mod cluster_crash;
mod cluster_life;
mod host;
mod patience;
mod program;
mod serve;
mod serve_cluster;
mod serve_crash;
mod sessions;
