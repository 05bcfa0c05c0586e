//! What has happened, when, and what was wrong about it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bai_core::clock::{Clock, Timestamp, from_micros};
use parking_lot::Mutex;
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

/// The story of a run. Clones share it.
#[derive(Debug, Clone)]
pub struct Trace {
    clock: VirtualClock,
    story: Arc<Mutex<Story>>,
}

#[derive(Debug, Default)]
struct Story {
    lines: Vec<String>,
    violations: Vec<String>,
}

impl Trace {
    /// An empty story that begins now.
    pub fn start(clock: VirtualClock) -> Self {
        Self { clock, story: Arc::default() }
    }

    /// Something has happened.
    pub fn say(&self, what: impl fmt::Display) {
        let line = format!("{:11.3} {what}", self.clock.elapsed().as_secs_f64());
        self.story.lock().lines.push(line);
    }

    /// Something has happened that must not.
    pub fn blame(&self, what: impl fmt::Display) {
        let line = format!("{:11.3} VIOLATION {what}", self.clock.elapsed().as_secs_f64());
        let story = &mut *self.story.lock();
        story.lines.push(line.clone());
        story.violations.push(line);
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.story.lock().lines.clone()
    }

    /// What must not have happened and has.
    pub fn violations(&self) -> Vec<String> {
        self.story.lock().violations.clone()
    }
}
