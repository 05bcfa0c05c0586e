//! Whether the time of this process goes evenly. Whoever was away, or is told another time than before, knows nothing about the silence
//! of others.

use std::time::Duration;

use bai_core::Timestamp;
use chrono::TimeDelta;
use tokio::time::Instant;

/// How often one looks.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// Clocks are drawn nearer to each other by less than this at a time, and nobody who is merely busy comes so late.
const UNEVEN: Duration = Duration::from_secs(5);

/// The last look, on the clock and in the time that really passes.
#[derive(Debug)]
pub(super) struct Pace {
    clock: Timestamp,
    passed: Instant,
}

impl Pace {
    pub(super) fn start(now: Timestamp) -> Self {
        Self { clock: now, passed: Instant::now() }
    }

    /// Whether the clock has jumped since the last look, or this process has stood still.
    pub(super) fn stumbles(&mut self, now: Timestamp) -> bool {
        let before = std::mem::replace(self, Self::start(now));
        let passed = self.passed - before.passed;
        let drift = now - before.clock - TimeDelta::from_std(passed).unwrap_or(TimeDelta::MAX);
        passed > TICK + UNEVEN || drift.abs().to_std().is_ok_and(|drift| drift > UNEVEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_of_the_clock_and_a_pause_are_noticed_once() {
        let mut pace = Pace::start(at(1_000));
        tokio::time::advance(TICK).await;
        assert!(!pace.stumbles(at(1_001)));
        tokio::time::advance(TICK).await;
        assert!(!pace.stumbles(at(1_005)), "corrected by little");
        for jumped in [at(5_000), at(100)] {
            tokio::time::advance(TICK).await;
            assert!(pace.stumbles(jumped));
            assert!(!pace.stumbles(jumped));
        }
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(pace.stumbles(at(160)), "stood still");
    }
}
