//! Configuration and leases on etcd 3.4 or later, through its JSON gateway.

mod api;
mod config;
mod lease;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bai_core::error::{Error, Result, code};

use api::{Api, KeyRange};

/// How a cluster uses an etcd server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EtcdOptions {
    /// What all keys start with, so that clusters can share a server; `/bai/` by default.
    pub prefix: String,
    /// Deadline of one call, whatever members are tried; five seconds by default.
    pub timeout: Duration,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self { prefix: "/bai/".to_owned(), timeout: Duration::from_secs(5) }
    }
}

/// An etcd cluster as [`ConfigStore`](bai_core::port::ConfigStore) and [`Lease`](bai_core::port::Lease). Clones share its
/// connections.
#[derive(Clone)]
pub struct Etcd {
    api: Arc<Api>,
    prefix: Arc<str>,
}

impl Etcd {
    /// Connects to the members at `endpoints` (`http://host:port`), which are tried in turn:
    /// a member that cannot be reached, or does not answer in time, is passed over by later calls.
    ///
    /// # Errors
    /// `Invalid` for malformed endpoints, `Unavailable` when no member can be reached.
    pub async fn connect(endpoints: &[String], options: EtcdOptions) -> Result<Self> {
        let api = Api::new(endpoints, options.timeout)?;
        let etcd = Self { api: Arc::new(api), prefix: options.prefix.into() };
        etcd.range(KeyRange::only(&etcd.config_key(""))).await?;
        Ok(etcd)
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// An error of the coordination service.
fn failed(message: &'static str) -> Error {
    Error::of(code::COORD_FAILED, message)
}
