use bai_core::slots::{SlotName, SlotType};
use bai_scheduler::device::{Device, Family, Holding, SlotDevices};
use serde_json::Value;

use super::{ComputePlugin, Grant};

/// The slot `mem`: bytes of memory, all from one device.
#[derive(Debug)]
pub struct MemPlugin {
    capacity: u64,
}

impl MemPlugin {
    /// Offers `total` bytes less `reserved`, rounded down to a multiple of `align`, `overcommit` times.
    pub fn new(total: u64, reserved: u64, align: u64, overcommit: u32) -> Self {
        let align = align.max(1);
        let usable = total.saturating_sub(reserved) / align * align;
        Self { capacity: usable.saturating_mul(u64::from(overcommit.max(1))) }
    }

    /// Memory of the host in bytes.
    pub fn host_total() -> u64 {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0).saturating_mul(1024)
    }
}

impl ComputePlugin for MemPlugin {
    fn key(&self) -> &'static str {
        "mem"
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").into()
    }

    fn slot_types(&self) -> Vec<(SlotName, SlotType)> {
        vec![("mem".into(), SlotType::Bytes)]
    }

    fn family(&self) -> Family {
        let root = Device::new("root", self.capacity);
        Family::new("mem", vec![SlotDevices::discrete("mem", vec![root])])
    }

    fn grant(&self, held: &Holding, grant: &mut Grant) {
        grant.limits.memory = held.total("mem").to_u64();
    }

    fn attached(&self, _held: &Holding) -> Vec<Value> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_rounded_down_after_the_reserve_is_taken_off() {
        let capacity = |plugin: MemPlugin| plugin.family().slots[0].devices[0].capacity;
        assert_eq!(capacity(MemPlugin::new(100, 10, 16, 1)), 80.into());
        assert_eq!(capacity(MemPlugin::new(100, 10, 16, 3)), 240.into());
        assert_eq!(capacity(MemPlugin::new(5, 10, 16, 1)), 0.into());
    }
}
