//! The suites on real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::assigning_clones, clippy::print_stdout)]

#[cfg(feature = "etcd")]
mod etcd;
#[cfg(any(feature = "redis", feature = "etcd"))]
mod proxy;
#[cfg(feature = "redis")]
mod redis;
