//! The time of the simulation, and what the clocks of its members make of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bai_core::clock::{Clock, Timestamp, from_micros};
use chrono::TimeDelta;
use tokio::time::Instant;

/// When all simulations begin.
const EPOCH_MICROS: i64 = 1_700_000_000_000_000;

/// The time of the runtime it was made in.
#[derive(Debug, Clone, Copy)]
pub struct VirtualClock(Instant);

impl VirtualClock {
    /// A clock that begins now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        from_micros(EPOCH_MICROS + i64::try_from(self.elapsed().as_micros()).unwrap_or(i64::MAX))
    }
}

/// The clock of one host, which may be wrong. Clones share it.
#[derive(Debug, Clone)]
pub struct HostClock {
    right: VirtualClock,
    /// In microseconds.
    error: Arc<AtomicI64>,
}

impl HostClock {
    /// A clock that is right.
    pub fn new(right: VirtualClock) -> Self {
        Self { right, error: Arc::default() }
    }

    /// Sets it to the right time and `error`.
    pub fn set(&self, error: TimeDelta) {
        self.error.store(error.num_microseconds().unwrap_or(0), Ordering::Relaxed);
    }
}

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        self.right.now() + TimeDelta::microseconds(self.error.load(Ordering::Relaxed))
    }
}
