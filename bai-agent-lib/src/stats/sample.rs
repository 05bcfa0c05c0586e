use bai_core::execution::KernelStats;
use serde_json::{Value, json};

use crate::cgroup::Usage;

/// The raw counters of a kernel at one moment, as a back end reads them. The agent makes rates and extremes of them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// CPU time since the start in milliseconds.
    pub cpu_ms: f64,
    /// Memory in use in bytes, without droppable file cache.
    pub memory: u64,
    /// Memory limit in bytes.
    pub memory_limit: Option<u64>,
    /// Bytes read since the start.
    pub io_read: u64,
    /// Bytes written since the start.
    pub io_write: u64,
    /// Bytes received since the start.
    pub net_rx: u64,
    /// Bytes sent since the start.
    pub net_tx: u64,
    /// Processes killed because of the memory limit.
    pub oom_kills: u64,
}

impl From<Usage> for Sample {
    fn from(usage: Usage) -> Self {
        #[allow(clippy::cast_precision_loss)]
        Self {
            cpu_ms: usage.cpu_ns as f64 / 1e6,
            memory: usage.memory,
            memory_limit: usage.memory_limit,
            io_read: usage.io_read,
            io_write: usage.io_write,
            net_rx: 0,
            net_tx: 0,
            oom_kills: usage.oom_kills,
        }
    }
}

impl Sample {
    /// The form that [`bai_core::port::KernelBackend::stats`] returns: metric to `{"current", "capacity"?}`, counters as
    /// totals.
    pub fn into_stats(self) -> KernelStats {
        let current = |value: String| json!({ "current": value });
        let mut mem = json!({ "current": self.memory.to_string() });
        if let Some(limit) = self.memory_limit {
            mem["capacity"] = Value::String(limit.to_string());
        }
        [
            ("cpu_used", current(format!("{:.3}", self.cpu_ms))),
            ("mem", mem),
            ("io_read", current(self.io_read.to_string())),
            ("io_write", current(self.io_write.to_string())),
            ("net_rx", current(self.net_rx.to_string())),
            ("net_tx", current(self.net_tx.to_string())),
            ("oom_kills", current(self.oom_kills.to_string())),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// Reads that form back; what is missing is zero.
    pub fn from_stats(stats: &KernelStats) -> Self {
        let text = |name: &str, field: &str| stats.get(name)?.get(field)?.as_str().map(str::to_owned);
        let number = |name: &str| text(name, "current").and_then(|text| text.parse().ok()).unwrap_or(0);
        Self {
            cpu_ms: text("cpu_used", "current").and_then(|text| text.parse().ok()).unwrap_or(0.0),
            memory: number("mem"),
            memory_limit: text("mem", "capacity").and_then(|text| text.parse().ok()),
            io_read: number("io_read"),
            io_write: number("io_write"),
            net_rx: number("net_rx"),
            net_tx: number("net_tx"),
            oom_kills: number("oom_kills"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_survives_its_form() {
        let sample = Sample {
            cpu_ms: 1.5,
            memory: 10,
            memory_limit: Some(20),
            io_read: 3,
            oom_kills: 4,
            ..Sample::default()
        };
        assert_eq!(Sample::from_stats(&sample.into_stats()), sample);
    }
}
