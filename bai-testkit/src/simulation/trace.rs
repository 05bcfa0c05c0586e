//! What has happened, when, and what was wrong about it.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::VirtualClock;

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
