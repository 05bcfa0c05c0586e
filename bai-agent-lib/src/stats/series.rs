use bai_core::clock::Timestamp;
use bai_core::execution::KernelStats;
use serde_json::Value;

use super::metric::{Moving, measured};
use super::sample::Sample;

/// Metrics in the order of [`values`], with their units.
const METRICS: [(&str, &str); 7] = [
    ("cpu_used", "msec"),
    ("mem", "bytes"),
    ("io_read", "bytes"),
    ("io_write", "bytes"),
    ("net_rx", "bps"),
    ("net_tx", "bps"),
    ("io_scratch_size", "bytes"),
];

/// Milliseconds of CPU time per second of one busy core.
const ONE_CORE: f64 = 1000.0;

/// The measurements of one kernel over its life.
#[derive(Debug, Default)]
pub(crate) struct KernelSeries {
    state: Option<State>,
}

#[derive(Debug)]
struct State {
    at: Timestamp,
    metrics: [Moving; METRICS.len()],
    cpu_util: Moving,
    /// Bytes in use at the last sample.
    memory: u64,
}

impl KernelSeries {
    /// Takes in a sample and says what clients see.
    pub(crate) fn fold(&mut self, sample: &Sample, at: Timestamp) -> KernelStats {
        let values = values(sample);
        let state = self.state.get_or_insert_with(|| State {
            at,
            metrics: values.map(Moving::new),
            cpu_util: Moving::new(0.0),
            memory: sample.memory,
        });
        state.memory = sample.memory;
        #[allow(clippy::cast_precision_loss)]
        let seconds = (at - state.at).num_microseconds().unwrap_or(0) as f64 / 1e6;
        if seconds > 0.0 {
            state.metrics.iter_mut().zip(values).for_each(|(metric, value)| metric.push(value, seconds));
            state.cpu_util.push(state.metrics[0].rate(), seconds);
            state.at = at;
        }
        state.show(sample)
    }

    /// Takes in the last sample, of a kernel that has ended: its counters are final, and its memory is what it last had while it
    /// lived.
    pub(crate) fn close(&mut self, mut sample: Sample, at: Timestamp) -> KernelStats {
        if let Some(state) = &self.state {
            sample.memory = state.memory;
        }
        self.fold(&sample, at)
    }
}

impl State {
    fn show(&self, sample: &Sample) -> KernelStats {
        let mut stats = KernelStats::new();
        for ((name, unit), moving) in METRICS.into_iter().zip(&self.metrics) {
            // What has no limit of its own is shown as its own capacity, as clients are used to.
            let own = (moving.last() > 0.0).then_some(moving.last());
            #[allow(clippy::cast_precision_loss)]
            let capacity = match name {
                "mem" => sample.memory_limit.map(|limit| limit as f64).or(own),
                _ => own,
            };
            let mut value = measured(moving.last(), capacity, unit);
            moving.write(&mut value);
            stats.insert(name.to_owned(), Value::Object(value));
        }
        let mut value = measured(self.cpu_util.last(), Some(ONE_CORE), "percent");
        self.cpu_util.write(&mut value);
        stats.insert("cpu_util".to_owned(), Value::Object(value));
        stats
    }
}

#[allow(clippy::cast_precision_loss)]
fn values(sample: &Sample) -> [f64; METRICS.len()] {
    [
        sample.cpu_ms,
        sample.memory as f64,
        sample.io_read as f64,
        sample.io_write as f64,
        sample.net_rx as f64,
        sample.net_tx as f64,
        0.0,
    ]
}

#[cfg(test)]
mod tests {
    use bai_core::clock::from_micros;

    use super::*;

    #[test]
    fn a_busy_kernel_shows_its_rates() {
        let mut series = KernelSeries::default();
        let sample =
            |cpu_ms, memory| Sample { cpu_ms, memory, memory_limit: Some(1000), ..Sample::default() };
        series.fold(&sample(100.0, 500), from_micros(0));
        let stats = series.fold(&sample(1600.0, 250), from_micros(1_000_000));
        assert_eq!(stats["cpu_util"]["current"], "1500");
        assert_eq!(stats["cpu_util"]["pct"], "150");
        assert_eq!(stats["cpu_util"]["stats.avg"], "750");
        assert_eq!(stats["cpu_used"]["current"], "1600");
        assert_eq!(stats["mem"]["pct"], "25");
        assert_eq!(stats["mem"]["stats.max"], "500");
        assert_eq!(stats["io_read"]["stats.rate"], "0");
        assert_eq!(stats["io_scratch_size"]["unit_hint"], "bytes");
        // A second look at the same moment changes nothing.
        assert_eq!(series.fold(&sample(1600.0, 250), from_micros(1_000_000)), stats);
    }

    #[test]
    fn what_has_ended_keeps_its_memory() {
        let sample = |cpu_ms, memory| Sample { cpu_ms, memory, ..Sample::default() };
        let mut series = KernelSeries::default();
        series.fold(&sample(1.0, 500), from_micros(0));
        let stats = series.close(sample(7.0, 0), from_micros(200_000));
        assert_eq!((&stats["cpu_used"]["current"], &stats["mem"]["current"]), (&"7".into(), &"500".into()));
        assert_eq!(stats["mem"]["stats.min"], "500");
        // Of one that was never measured while it lived, this is all there is.
        assert_eq!(KernelSeries::default().close(sample(3.0, 0), from_micros(0))["cpu_used"]["current"], "3");
    }
}
