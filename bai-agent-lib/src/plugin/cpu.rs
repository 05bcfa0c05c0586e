use std::collections::HashMap;
use std::path::Path;

use bai_core::slots::{Amount, SlotName, SlotType};
use bai_scheduler::device::{Device, DeviceId, Family, Fraction, Holding, SlotDevices};
use rust_decimal::Decimal;
use serde_json::Value;

use super::{ComputePlugin, Grant};

/// The device that stands for all cores where none is given to a kernel in particular.
const SHARED: &str = "shared";

/// The slot `cpu`. With pinning each core is a device: a kernel runs on the cores of which it holds a part, so whole cores
/// are its own while there are enough. Without, all cores are one device and a kernel runs on any of them under a quota.
#[derive(Debug)]
pub struct CpuPlugin {
    cores: Vec<u32>,
    overcommit: u32,
    pin: bool,
}

impl CpuPlugin {
    /// Offers `cores` core numbers, each `overcommit` times. With `pin` kernels are bound to cores, which needs an
    /// `overcommit` of 1.
    pub fn new(cores: Vec<u32>, overcommit: u32, pin: bool) -> Self {
        let overcommit = overcommit.max(1);
        Self { cores, overcommit, pin: pin && overcommit == 1 }
    }

    /// The cores this process may run on.
    pub fn host_cores() -> Vec<u32> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("0");
        parse_list(list.trim())
    }

    fn devices(&self) -> Vec<Device> {
        if !self.pin {
            let count = u32::try_from(self.cores.len()).unwrap_or(u32::MAX);
            return vec![Device::new(SHARED, count.saturating_mul(self.overcommit))];
        }
        let nodes = core_nodes(Path::new("/sys/devices/system/node"));
        let device = |core: &u32| {
            let device = Device::new(core.to_string(), 1);
            nodes.get(core).map_or(device.clone(), |node| device.on_node(*node))
        };
        self.cores.iter().map(device).collect()
    }

    /// What is left of each core beside those who have cores of their own.
    fn room(&self, living: &[&mut Holding]) -> Vec<(DeviceId, Amount)> {
        let left = |core: &u32| {
            let core = core.to_string();
            let used = living.iter().map(|held| held.amount("cpu", &core)).sum();
            (core.into(), Amount::ONE.saturating_sub(used))
        };
        self.cores.iter().map(left).collect()
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

    fn family(&self) -> Family {
        // A thousandth is finer than the quotas of control groups.
        let parts = Fraction::new(Decimal::new(1, 3)).unwrap_or_default();
        Family::new("cpu", vec![SlotDevices::fractional("cpu", parts, self.devices())])
    }

    /// Kernels that were started with pinning hold cores, the others hold `SHARED`. What they hold of the form that is no
    /// longer used goes over to the one that is, so that it counts against what there is.
    fn adopt(&self, living: &mut [&mut Holding]) {
        if !self.pin {
            for held in living.iter_mut().filter(|held| held.devices("cpu").next().is_some()) {
                let total = held.total("cpu");
                held.replace("cpu", [(SHARED.into(), total)]);
            }
            return;
        }
        let mut room = self.room(living);
        for held in living.iter_mut() {
            let wanted = held.amount("cpu", SHARED);
            if !wanted.is_zero() {
                held.replace("cpu", spread(wanted, &mut room));
            }
        }
    }

    fn grant(&self, held: &Holding, grant: &mut Grant) {
        let total = held.total("cpu");
        if total.is_zero() {
            return;
        }
        grant.limits.cpu = Some(total.to_f64());
        grant.limits.cpuset =
            held.devices("cpu").filter_map(|(core, _)| core.as_str().parse().ok()).collect();
        grant.limits.cpuset.sort_unstable();
    }

    fn attached(&self, _held: &Holding) -> Vec<Value> {
        Vec::new()
    }
}

/// Takes `wanted` from the cores with most room, and what there is no room for from the first.
fn spread(wanted: Amount, room: &mut [(DeviceId, Amount)]) -> Vec<(DeviceId, Amount)> {
    room.sort_by_key(|(_, left)| std::cmp::Reverse(*left));
    let mut missing = wanted;
    let mut taken = Vec::new();
    for (core, left) in room.iter_mut().filter(|(_, left)| !left.is_zero()) {
        if missing.is_zero() {
            break;
        }
        let part = missing.min(*left);
        *left = left.saturating_sub(part);
        missing = missing.saturating_sub(part);
        taken.push((core.clone(), part));
    }
    if !missing.is_zero() {
        match (taken.first_mut(), room.first()) {
            (Some((_, part)), _) => *part = part.saturating_add(missing),
            (None, Some((core, _))) => taken.push((core.clone(), missing)),
            (None, None) => taken.push((SHARED.into(), missing)),
        }
    }
    taken
}

/// The NUMA node of each core.
fn core_nodes(nodes: &Path) -> HashMap<u32, u32> {
    let mut found = HashMap::new();
    for entry in std::fs::read_dir(nodes).into_iter().flatten().flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.strip_prefix("node")?.parse().ok());
        let list = std::fs::read_to_string(entry.path().join("cpulist"));
        if let (Some(node), Ok(list)) = (number, list) {
            found.extend(parse_list(list.trim()).into_iter().map(|core| (core, node)));
        }
    }
    found
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

    fn holding(devices: &[(&str, &str)]) -> Holding {
        let mut held = Holding::new();
        for (device, amount) in devices {
            held.insert("cpu", *device, amount.parse::<Amount>().unwrap());
        }
        held
    }

    fn adopted<const N: usize>(plugin: &CpuPlugin, mut living: [Holding; N]) -> [Holding; N] {
        plugin.adopt(&mut living.iter_mut().collect::<Vec<_>>());
        living
    }

    #[test]
    fn a_kernel_runs_on_the_cores_it_holds_under_a_quota() {
        let limits = |held: &Holding| {
            let mut grant = Grant::default();
            CpuPlugin::new(vec![0, 1, 12], 1, true).grant(held, &mut grant);
            (grant.limits.cpu, grant.limits.cpuset)
        };
        assert_eq!(limits(&holding(&[("12", "1"), ("1", "0.5")])), (Some(1.5), vec![1, 12]));
        assert_eq!(limits(&holding(&[("shared", "3")])), (Some(3.0), vec![]));
        assert_eq!(limits(&Holding::new()), (None, vec![]));
    }

    #[test]
    fn pinning_needs_cores_that_are_given_once() {
        let devices =
            |overcommit, pin| CpuPlugin::new(vec![3, 5], overcommit, pin).family().slots.remove(0).devices;
        let ids: Vec<_> = devices(1, true).iter().map(|core| (core.id.to_string(), core.capacity)).collect();
        assert_eq!(ids, [("3".into(), Amount::ONE), ("5".into(), Amount::ONE)]);
        assert_eq!(devices(1, false), [Device::new("shared", 2)]);
        assert_eq!(devices(4, true), [Device::new("shared", 8)]);
    }

    #[test]
    fn shared_cores_of_earlier_kernels_are_found_beside_those_that_are_taken() {
        let plugin = CpuPlugin::new(vec![0, 1, 2, 3], 1, true);
        let [whole, shared, part, none] = adopted(
            &plugin,
            [
                holding(&[("2", "1")]),
                holding(&[("shared", "1.5")]),
                holding(&[("shared", "0.5")]),
                Holding::new(),
            ],
        );
        assert_eq!(whole, holding(&[("2", "1")]));
        assert_eq!(shared, holding(&[("0", "1"), ("1", "0.5")]));
        assert_eq!(part, holding(&[("3", "0.5")]));
        assert_eq!(none, Holding::new());
        // More than there is stays whole, too.
        let [much] = adopted(&plugin, [holding(&[("shared", "4.5")])]);
        assert_eq!(much.total("cpu"), "4.5".parse().unwrap());
        assert_eq!(much.amount("cpu", "0"), "1.5".parse().unwrap());
    }

    #[test]
    fn cores_of_earlier_kernels_count_where_none_is_given_in_particular() {
        let plugin = CpuPlugin::new(vec![0, 1], 2, true);
        let [cores, none] = adopted(&plugin, [holding(&[("0", "1"), ("1", "0.5")]), Holding::new()]);
        assert_eq!(cores, holding(&[("shared", "1.5")]));
        assert_eq!(none, Holding::new());
    }

    #[test]
    fn nodes_of_cores_are_read() {
        let dir = tempfile::tempdir().unwrap();
        for (node, list) in [("node0", "0-1,4\n"), ("node2", "2-3\n"), ("possible", "7\n")] {
            std::fs::create_dir(dir.path().join(node)).unwrap();
            std::fs::write(dir.path().join(node).join("cpulist"), list).unwrap();
        }
        let mut found: Vec<_> = core_nodes(dir.path()).into_iter().collect();
        found.sort_unstable();
        assert_eq!(found, [(0, 0), (1, 0), (2, 2), (3, 2), (4, 0)]);
        assert!(core_nodes(&dir.path().join("none")).is_empty());
    }

    #[test]
    fn lists_are_read() {
        assert_eq!(parse_list("0-2,7"), [0, 1, 2, 7]);
        assert!(parse_list("").is_empty());
    }
}
