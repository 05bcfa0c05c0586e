//! Leases within one process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use parking_lot::Mutex;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::{Error, Result, code};
use crate::port::Lease;
use crate::port::lease::Grant;

/// Leases in memory. Clones share them.
#[derive(Debug, Clone)]
pub struct MemoryLease {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct State {
    last_token: u64,
    held: HashMap<String, Held>,
}

#[derive(Debug)]
struct Held {
    token: u64,
    holder: String,
    ttl: Duration,
    ends: Timestamp,
}

impl MemoryLease {
    /// Leases on the system's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// Leases that end by `clock`.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { state: Arc::default(), clock }
    }
}

impl Default for MemoryLease {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// The lease of that name, if it has not ended. An ended one is forgotten.
    fn living(&mut self, name: &str, now: Timestamp) -> Option<&mut Held> {
        if self.held.get(name).is_some_and(|held| held.ends <= now) {
            self.held.remove(name);
        }
        self.held.get_mut(name)
    }
}

#[async_trait]
impl Lease for MemoryLease {
    async fn try_acquire(&self, name: &str, holder: &str, ttl: Duration) -> Result<Option<Grant>> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if state.living(name, now).is_some() {
            return Ok(None);
        }
        state.last_token += 1;
        let token = state.last_token;
        let held = Held { token, holder: holder.to_owned(), ttl, ends: end(now, ttl) };
        state.held.insert(name.to_owned(), held);
        Ok(Some(Grant { name: name.to_owned(), token, id: token.to_string() }))
    }

    async fn renew(&self, grant: &Grant) -> Result<()> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        match state.living(&grant.name, now).filter(|held| held.token == grant.token) {
            Some(held) => {
                held.ends = end(now, held.ttl);
                Ok(())
            }
            None => Err(Error::of(code::LEASE_LOST, "the lease has ended").with("name", &grant.name)),
        }
    }

    async fn release(&self, grant: &Grant) -> Result<()> {
        let mut state = self.state.lock();
        if state.held.get(&grant.name).is_some_and(|held| held.token == grant.token) {
            state.held.remove(&grant.name);
        }
        Ok(())
    }

    async fn holder(&self, name: &str) -> Result<Option<String>> {
        let now = self.clock.now();
        Ok(self.state.lock().living(name, now).map(|held| held.holder.clone()))
    }
}

/// A time too far away to be represented is never.
fn end(now: Timestamp, ttl: Duration) -> Timestamp {
    TimeDelta::from_std(ttl).ok().and_then(|ttl| now.checked_add_signed(ttl)).unwrap_or(Timestamp::MAX_UTC)
}
