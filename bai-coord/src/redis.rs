//! Events and counters on Redis 5 or later.

mod connection;
mod counter;
mod events;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Client, RedisError};
use bai_core::error::{Error, Result, code};

use connection::Shared;

/// Deadline of one call.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How a cluster uses a Redis server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedisOptions {
    /// What all keys start with, so that clusters can share a server; `bai` by default.
    pub prefix: String,
    /// How many events are kept at least, for subscribers that fall behind or come back; 65,536 by default.
    pub kept_events: usize,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self { prefix: "bai".to_owned(), kept_events: 65_536 }
    }
}

/// A Redis server as [`Events`](bai_core::port::Events) and [`Counter`](bai_core::port::Counter). Clones share one connection;
/// each subscription has its own.
///
/// A call fails with `Unavailable` after five seconds at most, or when the connection breaks; the next one connects again.
/// Such a call may have had its effect all the same.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
    options: RedisOptions,
}

impl Redis {
    /// Connects to the server at `url` (`redis://user:password@host:port/database`).
    ///
    /// # Errors
    /// `Invalid` for a malformed URL, `Unavailable` when the server cannot be reached.
    pub async fn connect(url: &str, options: RedisOptions) -> Result<Self> {
        // The URL may hold a password: it appears in no message.
        let client = Client::open(url)
            .map_err(|error| Error::of(code::CONFIG_INVALID, "not a valid Redis URL").source(error))?;
        let redis = Self { shared: Arc::new(Shared::new(client)), options };
        redis
            .shared
            .call(async |mut connection| ::redis::cmd("PING").exec_async(&mut connection).await)
            .await?;
        Ok(redis)
    }

    /// A key of this cluster. All of one kind are on one node of a sharded server: the scripts touch several.
    fn key(&self, kind: &str, name: &str) -> String {
        format!("{{{}:{kind}}}:{name}", self.options.prefix)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Hides the driver's error behind ours.
fn failed(error: RedisError) -> Error {
    Error::of(code::COORD_FAILED, "Redis failed").source(error)
}
