//! Averages of metrics over a window of time, in bounded memory.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bai_core::Timestamp;

/// Parts of a window: how finely it moves on.
const PARTS: u32 = 60;

/// What a session has used lately.
#[derive(Debug, Default)]
pub(super) struct Usage {
    window: Duration,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    metrics: BTreeMap<String, VecDeque<Part>>,
}

/// Measurements that lie close together.
#[derive(Debug, Clone, Copy)]
struct Part {
    from: Timestamp,
    sum: f64,
    count: f64,
}

impl Usage {
    /// Takes in measurements. Another window, or a gap of half of it, starts anew: what lies before says nothing.
    pub(super) fn note(&mut self, measured: &BTreeMap<String, f64>, window: Duration, now: Timestamp) {
        let gap = self.last.is_some_and(|last| age(last, now) > window / 2);
        if self.window != window || gap {
            *self = Self { window, ..Self::default() };
        }
        if measured.is_empty() {
            return;
        }
        self.first.get_or_insert(now);
        self.last = Some(now);
        for (metric, value) in measured {
            let parts = match self.metrics.get_mut(metric) {
                Some(parts) => parts,
                None => self.metrics.entry(metric.clone()).or_default(),
            };
            match parts.back_mut().filter(|part| age(part.from, now) < window / PARTS) {
                Some(part) => {
                    part.sum += value;
                    part.count += 1.0;
                }
                None => parts.push_back(Part { from: now, sum: *value, count: 1.0 }),
            }
            while parts.front().is_some_and(|part| age(part.from, now) > window) {
                parts.pop_front();
            }
        }
    }

    /// Whether measurements span the whole window, up to now.
    pub(super) fn is_full(&self, now: Timestamp) -> bool {
        let spans = self.first.is_some_and(|first| age(first, now) >= self.window);
        spans && self.last.is_some_and(|last| age(last, now) <= self.window / 2)
    }

    /// The average of a metric over the window; `None` without measurements.
    pub(super) fn average(&self, metric: &str) -> Option<f64> {
        let parts = self.metrics.get(metric)?;
        let (sum, count) =
            parts.iter().fold((0.0, 0.0), |(sum, count), part| (sum + part.sum, count + part.count));
        (count > 0.0).then(|| sum / count)
    }
}

fn age(at: Timestamp, now: Timestamp) -> Duration {
    (now - at).to_std().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bai_core::clock::from_micros;

    use super::*;

    const WINDOW: Duration = Duration::from_mins(10);

    fn at(seconds: i64) -> Timestamp {
        from_micros(seconds * 1_000_000)
    }

    fn noted(times: impl IntoIterator<Item = (i64, f64)>) -> Usage {
        let mut usage = Usage::default();
        for (second, value) in times {
            usage.note(&[("mem".to_owned(), value)].into_iter().collect(), WINDOW, at(second));
        }
        usage
    }

    #[test]
    fn only_the_window_counts() {
        let busy_then_idle = (0..80).map(|tick| (tick * 15, if tick < 40 { 100.0 } else { 0.0 }));
        let usage = noted(busy_then_idle);
        assert!(usage.is_full(at(1200)));
        let average = usage.average("mem").unwrap();
        assert!(average < 5.0, "{average}");
        assert_eq!(usage.average("cpu_util"), None);
    }

    #[test]
    fn a_window_that_is_not_full_is_not_judged() {
        let usage = noted((0..20).map(|tick| (tick * 15, 0.0)));
        assert!(!usage.is_full(at(300)));
        assert!(!Usage::default().is_full(at(300)));
    }

    #[test]
    fn a_gap_starts_anew() {
        let ticks = (0..50).chain(75..80);
        let usage = noted(ticks.map(|tick| (tick * 15, 0.0)));
        assert!(!usage.is_full(at(80 * 15)));
    }

    #[test]
    fn memory_is_bounded() {
        let usage = noted((0..10_000).map(|second| (second, 1.0)));
        assert!(usage.metrics["mem"].len() <= PARTS as usize + 1, "{}", usage.metrics["mem"].len());
    }
}
