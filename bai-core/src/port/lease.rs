//! Leases: leader election and locks that end by themselves.

use async_trait::async_trait;
use std::fmt;
use std::time::Duration;

use crate::error::Result;

/// Proof of holding a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Name of the lease.
    pub name: String,
    /// Fencing token: larger than that of every earlier holder.
    pub token: u64,
    /// Identity of the grant in the back end.
    pub id: String,
}

/// Leases with fencing tokens. All implementations pass `bai_testkit::lease`.
#[async_trait]
pub trait Lease: fmt::Debug + Send + Sync + 'static {
    /// Takes the lease `name` for `ttl` if nobody holds it; `None` when somebody does. Back ends may round `ttl` up to whole
    /// seconds.
    ///
    /// # Errors
    /// `Unavailable` when the back end cannot be reached (so for all methods here).
    async fn try_acquire(&self, name: &str, holder: &str, ttl: Duration) -> Result<Option<Grant>>;
    /// Extends the grant by the `ttl` it was taken with. `Conflict` ([`crate::error::code::LEASE_LOST`]) when it has ended.
    async fn renew(&self, grant: &Grant) -> Result<()>;
    /// Gives the lease back. Safe to call twice; a grant that has ended changes nothing.
    async fn release(&self, grant: &Grant) -> Result<()>;
    /// Who holds `name` now.
    async fn holder(&self, name: &str) -> Result<Option<String>>;
}
