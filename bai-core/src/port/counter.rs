//! Counters over a rolling window, for rate limits and login blocks.

use async_trait::async_trait;
use std::fmt;
use std::time::Duration;

use crate::error::Result;

/// Rolling counters. All implementations pass `bai_testkit::counter`.
#[async_trait]
pub trait Counter: fmt::Debug + Send + Sync + 'static {
    /// Counts one hit on `key` and returns the hits of the last `window`, this one included. Implementations may divide the
    /// window into at least 15 slices and drop whole slices.
    ///
    /// # Errors
    /// `Unavailable` when the back end cannot be reached (so for all methods here).
    async fn hit(&self, key: &str, window: Duration) -> Result<u64>;
    /// The hits of the last `window` without counting one.
    async fn peek(&self, key: &str, window: Duration) -> Result<u64>;
    /// Forgets `key`.
    async fn reset(&self, key: &str) -> Result<()>;
}
