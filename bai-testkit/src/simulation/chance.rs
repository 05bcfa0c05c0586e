//! Luck that can be had again.

use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

/// A stream of decisions that follows from a seed.
#[derive(Debug)]
pub struct Chance(Mutex<SmallRng>);

impl Chance {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(SmallRng::seed_from_u64(seed)))
    }

    /// Another stream, so that what one part of the world decides does not change the luck of another.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::new(self.number())
    }

    /// Any number.
    pub fn number(&self) -> u64 {
        self.0.lock().next_u64()
    }

    /// True in so many of a thousand cases.
    pub fn permille(&self, of_a_thousand: u32) -> bool {
        of_a_thousand > 0 && self.0.lock().random_range(0..1000) < of_a_thousand
    }

    /// A number less than `end`, or 0.
    pub fn below(&self, end: usize) -> usize {
        if end == 0 { 0 } else { self.0.lock().random_range(0..end) }
    }

    /// A duration of so many milliseconds, both ends included.
    pub fn millis(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.0.lock().random_range(least..=most.max(least)))
    }

    /// One of several.
    pub fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }
}
