//! What containers use: read from files of the kernel, without a call to the engine per measurement.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use bai_core::error::{Error, Result, code};
use bai_core::execution::KernelStats;
use bai_core::port::agent::KernelRef;
use bollard::query_parameters::InspectContainerOptions;
use parking_lot::Mutex;

use super::container;
use super::engine::{Engine, Failure};
use crate::cgroup::{self, Cgroups};
use crate::stats::Sample;

/// Where the counters of running containers are, found once for each.
#[derive(Debug, Default)]
pub(super) struct Meters(Mutex<HashMap<KernelRef, Arc<Meter>>>);

#[derive(Debug)]
struct Meter {
    pid: u32,
    cgroups: Arc<dyn Cgroups>,
    group: String,
}

impl Meters {
    /// Measures a container.
    ///
    /// # Errors
    /// `NotFound` when it does not run; `Unavailable` and `Timeout` of the engine.
    pub(super) async fn read(&self, engine: &Engine, kernel: KernelRef) -> Result<KernelStats> {
        let known = self.0.lock().get(&kernel).cloned();
        if let Some(stats) = known.and_then(|meter| meter.read()) {
            return Ok(stats);
        }
        self.forget(kernel);
        let meter = Arc::new(Meter::find(engine, kernel).await?);
        let stats = meter.read().ok_or_else(|| not_running(kernel))?;
        self.0.lock().insert(kernel, meter);
        Ok(stats)
    }

    pub(super) fn forget(&self, kernel: KernelRef) {
        self.0.lock().remove(&kernel);
    }
}

impl Meter {
    async fn find(engine: &Engine, kernel: KernelRef) -> Result<Self> {
        let name = container::name(kernel);
        let inspected =
            engine.call(engine.docker.inspect_container(&name, None::<InspectContainerOptions>)).await;
        let state = match inspected {
            Ok(container) => container.state,
            Err(failure) if failure.is_missing() => None,
            Err(failure) => return Err(Failure::into(failure)),
        };
        let pid = state.and_then(|state| state.pid).and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.filter(|pid| *pid != 0).ok_or_else(|| not_running(kernel))?;
        let (cgroups, group) = cgroup::of_process(pid).map_err(|error| not_running(kernel).source(error))?;
        Ok(Self { pid, cgroups, group })
    }

    /// The group goes with its container, so what can be read is not that of a later process with the same number.
    fn read(&self) -> Option<KernelStats> {
        let net = fs::read_to_string(format!("/proc/{}/net/dev", self.pid)).unwrap_or_default();
        let usage = self.cgroups.usage(&self.group).ok()?;
        let (net_rx, net_tx) = traffic(&net);
        Some(Sample { net_rx, net_tx, ..Sample::from(usage) }.into_stats())
    }
}

/// Bytes received and sent on all interfaces but the loopback.
fn traffic(net_dev: &str) -> (u64, u64) {
    let interfaces = net_dev.lines().filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let mut counters = counters.split_whitespace().map(|count| count.parse::<u64>().ok());
        (name.trim() != "lo").then_some((counters.next()??, counters.nth(7)??))
    });
    interfaces.fold((0, 0), |(rx, tx), (received, sent)| (rx + received, tx + sent))
}

fn not_running(kernel: KernelRef) -> Error {
    Error::of(code::KERNEL_NOT_FOUND, "no such kernel runs here").with("kernel", kernel.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_leaves_the_loopback_out() {
        let text = "Inter-|   Receive                        |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n    \
            lo:  999       9    0    0    0     0          0         0      999       9    0\n  \
            eth0: 1500      10    0    0    0     0          0         0     700       5    0\n  \
            eth1:    1       1    0    0    0     0          0         0       2       1    0\n";
        assert_eq!(traffic(text), (1501, 702));
        assert_eq!(traffic(""), (0, 0));
    }
}
