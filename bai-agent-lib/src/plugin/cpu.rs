use std::collections::BTreeSet;

use bai_core::error::{Error, Result, code};
use bai_core::id::KernelId;
use bai_core::slots::{Amount, ResourceSlots, SlotName, SlotType};
use parking_lot::Mutex;
use serde_json::Value;

use super::{Allocation, ComputePlugin, DeviceAmounts, Grant, Holdings, over_capacity};

/// Device id of the cores that are shared.
const SHARED: &str = "shared";

/// The slot `cpu`. A kernel with whole cores gets cores of its own while there are enough; any other shares the cores
/// under a quota.
#[derive(Debug)]
pub struct CpuPlugin {
    capacity: u32,
    /// Core numbers that may be given to one kernel alone.
    cores: BTreeSet<u32>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    holdings: Holdings,
    /// Cores that some kernel has alone.
    taken: BTreeSet<u32>,
}

impl Held {
    fn put(&mut self, kernel: KernelId, devices: &DeviceAmounts) {
        self.taken.extend(core_numbers(devices));
        self.holdings.put(kernel, devices.clone());
    }
}

fn core_numbers(devices: &DeviceAmounts) -> impl Iterator<Item = u32> {
    devices.keys().filter_map(|device| device.parse().ok())
}

impl CpuPlugin {
    /// Offers `cores` core numbers, each `overcommit` times. With `pin` whole cores are given exclusively, which needs
    /// an `overcommit` of 1.
    pub fn new(cores: Vec<u32>, overcommit: u32, pin: bool) -> Self {
        let overcommit = overcommit.max(1);
        let capacity = u32::try_from(cores.len()).unwrap_or(u32::MAX).saturating_mul(overcommit);
        Self {
            capacity,
            cores: if pin && overcommit == 1 { cores.into_iter().collect() } else { BTreeSet::new() },
            held: Mutex::default(),
        }
    }

    /// The cores this process may run on.
    pub fn host_cores() -> Vec<u32> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("0");
        parse_list(list.trim())
    }

    /// Cores for one kernel alone, lowest numbers first; `None` when there are not enough or the amount is not whole.
    fn exclusive(&self, wanted: Amount, taken: &BTreeSet<u32>) -> Option<DeviceAmounts> {
        let count = usize::try_from(wanted.to_u64().filter(|_| wanted.is_integer())?).ok()?;
        let free = self.cores.difference(taken).take(count);
        let cores: DeviceAmounts = free.map(|core| (core.to_string(), Amount::ONE)).collect();
        (cores.len() == count).then_some(cores)
    }
}

impl ComputePlugin for CpuPlugin {
    fn key(&self) -> &'static str {
        "cpu"
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").into()
    }

    fn slot_types(&self) -> Vec<(SlotName, SlotType)> {
        vec![("cpu".into(), SlotType::Count)]
    }

    fn capacity(&self) -> ResourceSlots {
        [("cpu", self.capacity)].into_iter().collect()
    }

    fn allocate(&self, kernel: KernelId, wanted: &ResourceSlots) -> Result<Allocation> {
        let wanted = wanted.get("cpu");
        if wanted.is_infinite() || wanted.is_negative() {
            return Err(Error::of(code::INVALID_SLOTS, "not an amount of cores").with("requested", wanted));
        }
        let mut held = self.held.lock();
        let left = Amount::from(self.capacity).saturating_sub(held.holdings.total);
        if wanted > left {
            return Err(over_capacity("cpu", wanted, left));
        }
        let shared = || [(SHARED.to_owned(), wanted)].into_iter().collect();
        let devices = self.exclusive(wanted, &held.taken).unwrap_or_else(shared);
        held.put(kernel, &devices);
        Ok(Allocation([("cpu".into(), devices)].into_iter().collect()))
    }

    fn restore(&self, kernel: KernelId, held: &Allocation) {
        if let Some(devices) = held.0.get("cpu") {
            self.held.lock().put(kernel, devices);
        }
    }

    fn release(&self, kernel: KernelId) {
        let mut held = self.held.lock();
        for core in core_numbers(&held.holdings.remove(kernel)) {
            held.taken.remove(&core);
        }
    }

    fn grant(&self, held: &Allocation, grant: &mut Grant) {
        let Some(devices) = held.0.get("cpu") else { return };
        grant.limits.cpu = Some(held.total("cpu").to_f64());
        grant.limits.cpuset = core_numbers(devices).collect();
    }

    fn attached(&self, _held: &Allocation) -> Vec<Value> {
        Vec::new()
    }
}

/// Reads a list like `0-3,8`.
fn parse_list(list: &str) -> Vec<u32> {
    list.split(',')
        .filter_map(|part| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            Some(low.trim().parse::<u32>().ok()?..=high.trim().parse::<u32>().ok()?)
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(cores: &str) -> ResourceSlots {
        [("cpu", cores.parse::<Amount>().unwrap())].into_iter().collect()
    }

    #[test]
    fn whole_cores_are_exclusive_while_they_last() {
        let plugin = CpuPlugin::new(vec![0, 1, 4], 1, true);
        let [whole, part, late] = std::array::from_fn(|_| KernelId::random());
        let cpuset = |held: &Allocation| {
            let mut grant = Grant::default();
            plugin.grant(held, &mut grant);
            (grant.limits.cpu, grant.limits.cpuset)
        };
        assert_eq!(cpuset(&plugin.allocate(whole, &want("2")).unwrap()), (Some(2.0), vec![0, 1]));
        assert_eq!(cpuset(&plugin.allocate(part, &want("0.5")).unwrap()), (Some(0.5), vec![]));
        assert_eq!(plugin.allocate(late, &want("1")).unwrap_err().code(), code::OVER_CAPACITY);
        plugin.release(whole);
        let held = plugin.allocate(late, &want("1")).unwrap();
        assert_eq!(cpuset(&held), (Some(1.0), vec![0]));
    }

    #[test]
    fn what_was_held_before_a_restart_is_not_given_away() {
        let plugin = CpuPlugin::new(vec![0, 1], 1, true);
        let held = plugin.allocate(KernelId::random(), &want("1")).unwrap();
        let again = CpuPlugin::new(vec![0, 1], 1, true);
        again.restore(KernelId::random(), &held);
        let other = again.allocate(KernelId::random(), &want("1")).unwrap();
        assert_eq!(other.0["cpu"].keys().collect::<Vec<_>>(), ["1"]);
    }

    #[test]
    fn lists_are_read() {
        assert_eq!(parse_list("0-2,7"), [0, 1, 2, 7]);
        assert!(parse_list("").is_empty());
    }
}
