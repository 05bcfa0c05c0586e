//! Rolling counters of one process.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::clock::{Clock, SystemClock};
use crate::error::Result;
use crate::port::Counter;

/// Slices of a window. The one in progress comes on top, so that no hit is dropped too early.
const SLICES: i64 = 15;

/// How many keys may gather before the ones without recent hits are looked for.
const SWEEP_AT: usize = 1024;

/// Rolling counters in memory. Clones share them. Hits are kept by key and window: different windows of one key
/// do not see each other's hits.
#[derive(Debug, Clone)]
pub struct MemoryCounter {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct State {
    keys: HashMap<String, Vec<Window>>,
    /// Number of keys at which to sweep next.
    sweep_at: usize,
}

#[derive(Debug)]
struct Window {
    /// Length of a slice in microseconds.
    slice: i64,
    /// Slice numbers with their hits, oldest first.
    hits: VecDeque<(i64, u64)>,
}

impl MemoryCounter {
    /// Counters on the system's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// Counters whose windows roll by `clock`.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let state = State { keys: HashMap::new(), sweep_at: SWEEP_AT };
        Self { state: Arc::new(Mutex::new(state)), clock }
    }
}

impl Default for MemoryCounter {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// Forgets keys without recent hits, whenever their number has doubled.
    fn sweep(&mut self, now: i64) {
        if self.keys.len() < self.sweep_at {
            return;
        }
        self.keys.retain(|_, windows| {
            windows.retain_mut(|window| window.total(now) > 0);
            !windows.is_empty()
        });
        self.sweep_at = (self.keys.len() * 2).max(SWEEP_AT);
    }
}

impl Window {
    fn hit(&mut self, now: i64) {
        let current = now.div_euclid(self.slice);
        match self.hits.back_mut() {
            Some((number, hits)) if *number >= current => *hits += 1,
            _ => self.hits.push_back((current, 1)),
        }
    }

    fn total(&mut self, now: i64) -> u64 {
        let oldest = now.div_euclid(self.slice) - SLICES;
        while self.hits.front().is_some_and(|(number, _)| *number < oldest) {
            self.hits.pop_front();
        }
        self.hits.iter().map(|(_, hits)| hits).sum()
    }
}

#[async_trait]
impl Counter for MemoryCounter {
    async fn hit(&self, key: &str, window: Duration) -> Result<u64> {
        let (now, slice) = (self.clock.now().timestamp_micros(), slice_of(window));
        let mut state = self.state.lock();
        state.sweep(now);
        let windows = state.keys.entry(key.to_owned()).or_default();
        let index = windows.iter().position(|window| window.slice == slice).unwrap_or_else(|| {
            windows.push(Window { slice, hits: VecDeque::new() });
            windows.len() - 1
        });
        windows[index].hit(now);
        Ok(windows[index].total(now))
    }

    async fn peek(&self, key: &str, window: Duration) -> Result<u64> {
        let (now, slice) = (self.clock.now().timestamp_micros(), slice_of(window));
        let mut state = self.state.lock();
        let window =
            state.keys.get_mut(key).and_then(|all| all.iter_mut().find(|window| window.slice == slice));
        Ok(window.map_or(0, |window| window.total(now)))
    }

    async fn reset(&self, key: &str) -> Result<()> {
        self.state.lock().keys.remove(key);
        Ok(())
    }
}

fn slice_of(window: Duration) -> i64 {
    i64::try_from(window.as_micros().div_ceil(SLICES.unsigned_abs().into()))
        .map_or(i64::MAX, |slice| slice.max(1))
}
