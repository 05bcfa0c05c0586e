use std::collections::BTreeMap;
use std::path::Path;

use bai_core::clock::Timestamp;
use serde_json::{Map, Value, json};

use super::metric::{Moving, measured};
use crate::plugin::MemPlugin;

/// Milliseconds of one tick of `/proc/stat`: the kernel always shows hundredths of seconds.
const TICK_MS: f64 = 10.0;

/// Measurements of the node over the life of the agent.
#[derive(Debug, Default)]
pub(crate) struct NodeSeries {
    last: Option<(Timestamp, Counters)>,
    mem: Option<Moving>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Counters {
    /// Core number to busy milliseconds.
    cores: BTreeMap<String, f64>,
    net_rx: f64,
    net_tx: f64,
}

impl NodeSeries {
    /// Measures: `{"node": …, "devices": …}`. `data_dir` says which disk is shown. Reads a few small files.
    pub(crate) fn measure(&mut self, data_dir: &Path, at: Timestamp) -> Value {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (net_rx, net_tx) = network(&read("/proc/net/dev"));
        let counters = Counters { cores: busy(&read("/proc/stat")), net_rx, net_tx };
        self.show(counters, memory_used(&read("/proc/meminfo")), disk(data_dir), at)
    }

    fn show(&mut self, now: Counters, mem_used: f64, disk: (f64, f64), at: Timestamp) -> Value {
        let (before, ms) = match &self.last {
            #[allow(clippy::cast_precision_loss)]
            Some((then, before)) => (before, (at - *then).num_microseconds().unwrap_or(0) as f64 / 1000.0),
            None => (&now, 0.0),
        };
        let mut cores = Map::new();
        let mut total = 0.0;
        for (core, busy) in &now.cores {
            let used = (busy - before.cores.get(core).unwrap_or(busy)).max(0.0);
            total += used;
            cores.insert(core.clone(), Value::Object(measured(used, Some(ms), "msec")));
        }
        let rate = |now: f64, before: f64| if ms > 0.0 { (now - before).max(0.0) / ms * 1000.0 } else { 0.0 };
        let (rx, tx) = (rate(now.net_rx, before.net_rx), rate(now.net_tx, before.net_tx));
        #[allow(clippy::cast_precision_loss)]
        let mem_total = MemPlugin::host_total() as f64;
        match &mut self.mem {
            Some(moving) => moving.push(mem_used, ms / 1000.0),
            none => *none = Some(Moving::new(mem_used)),
        }
        let mut mem = measured(mem_used, Some(mem_total), "bytes");
        self.mem.iter().for_each(|moving| moving.write(&mut mem));
        let disk = measured(disk.0, Some(disk.1), "bytes");
        let (rx, tx) = (measured(rx, None, "bps"), measured(tx, None, "bps"));
        self.last = Some((at, now));
        json!({
            "node": {
                "cpu_util": measured(total, Some(ms), "msec"),
                "mem": mem, "disk": disk, "net_rx": rx, "net_tx": tx,
            },
            "devices": {
                "cpu_util": cores, "mem": {"root": mem}, "disk": {"root": disk},
                "net_rx": {"node": rx}, "net_tx": {"node": tx},
            },
        })
    }
}

/// Busy milliseconds of each core.
fn busy(stat: &str) -> BTreeMap<String, f64> {
    let lines =
        stat.lines().filter_map(|line| line.strip_prefix("cpu")).filter(|rest| !rest.starts_with(' '));
    lines
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let core = fields.next()?.to_owned();
            let ticks: Vec<f64> = fields.map(|field| field.parse().unwrap_or(0.0)).collect();
            // user nice system idle iowait irq softirq steal; guest time is part of user time.
            let busy: f64 = ticks.iter().take(8).sum::<f64>() - ticks.get(3)? - ticks.get(4)?;
            Some((core, busy * TICK_MS))
        })
        .collect()
}

/// Bytes received and sent by all interfaces but the loopback one.
fn network(dev: &str) -> (f64, f64) {
    let lines = dev.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    lines.fold((0.0, 0.0), |(rx, tx), (_, fields)| {
        let fields: Vec<f64> = fields.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
        (rx + fields.first().unwrap_or(&0.0), tx + fields.get(8).unwrap_or(&0.0))
    })
}

/// Bytes in use: what is not available.
fn memory_used(meminfo: &str) -> f64 {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    (kib("MemTotal:") - kib("MemAvailable:")) * 1024.0
}

/// Used and total bytes of the file system at `path`.
#[allow(clippy::cast_precision_loss)]
fn disk(path: &Path) -> (f64, f64) {
    let Ok(stat) = nix::sys::statvfs::statvfs(path) else { return (0.0, 0.0) };
    let block = stat.fragment_size() as f64;
    let (total, free) = (stat.blocks() as f64 * block, stat.blocks_free() as f64 * block);
    (total - free, total)
}

#[cfg(test)]
mod tests {
    use bai_core::clock::from_micros;

    use super::*;

    const STAT: &str =
        "cpu  30 0 30 40 0 0 0 0 0 0\ncpu0 10 0 20 30 5 1 1 0 9 0\ncpu1 20 0 10 10 0 0 0 0 0 0\nintr 1\n";

    #[test]
    fn files_of_the_kernel_are_read() {
        let cores = busy(STAT);
        assert_eq!(cores, [("0".to_owned(), 320.0), ("1".to_owned(), 300.0)].into_iter().collect());
        let dev = "Inter-| Receive\n face |bytes\n lo: 9 0 0 0 0 0 0 0 9\n eth0: 5 1 0 0 0 0 0 0 7 1\n eth1:1 1 0 0 0 0 0 0 2 1\n";
        assert_eq!(network(dev), (6.0, 9.0));
        assert!((memory_used("MemTotal: 10 kB\nMemAvailable: 4 kB\n") - 6144.0).abs() < 0.1);
        assert!(disk(Path::new("/")).1 > 0.0);
    }

    #[test]
    fn utilization_is_what_was_busy_since_the_last_look() {
        let mut series = NodeSeries::default();
        let counters = |busy: f64, rx: f64| Counters {
            cores: [("0".to_owned(), busy)].into_iter().collect(),
            net_rx: rx,
            net_tx: 0.0,
        };
        series.show(counters(1000.0, 0.0), 5.0, (1.0, 4.0), from_micros(0));
        let shown = series.show(counters(3500.0, 100.0), 5.0, (1.0, 4.0), from_micros(5_000_000));
        assert_eq!(
            shown["node"]["cpu_util"],
            json!({"current": "2500", "capacity": "5000", "pct": "50", "unit_hint": "msec"})
        );
        assert_eq!(shown["devices"]["cpu_util"]["0"]["pct"], "50");
        assert_eq!(shown["node"]["net_rx"]["current"], "20");
        assert_eq!(shown["node"]["disk"]["pct"], "25");
        assert_eq!(shown["node"]["mem"]["stats.max"], "5");
    }
}
