use bai_core::error::{Error, Result, code};
use bai_core::id::KernelId;
use bai_core::slots::{Amount, ResourceSlots, SlotName, SlotType};
use parking_lot::Mutex;
use serde_json::Value;

use super::{Allocation, ComputePlugin, DeviceAmounts, Grant, Holdings, over_capacity};

/// The slot `mem`: bytes of memory.
#[derive(Debug)]
pub struct MemPlugin {
    capacity: u64,
    held: Mutex<Holdings>,
}

impl MemPlugin {
    /// Offers `total` bytes less `reserved`, rounded down to a multiple of `align`, `overcommit` times.
    pub fn new(total: u64, reserved: u64, align: u64, overcommit: u32) -> Self {
        let align = align.max(1);
        let usable = total.saturating_sub(reserved) / align * align;
        Self { capacity: usable.saturating_mul(u64::from(overcommit.max(1))), held: Mutex::default() }
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

    fn capacity(&self) -> ResourceSlots {
        [("mem", self.capacity)].into_iter().collect()
    }

    fn allocate(&self, kernel: KernelId, wanted: &ResourceSlots) -> Result<Allocation> {
        let wanted = wanted.get("mem");
        if wanted.to_u64().is_none() || !wanted.is_integer() {
            return Err(Error::of(code::INVALID_SLOTS, "not a size in bytes").with("requested", wanted));
        }
        let mut held = self.held.lock();
        let left = Amount::from(self.capacity).saturating_sub(held.total);
        if wanted > left {
            return Err(over_capacity("mem", wanted, left));
        }
        let devices: DeviceAmounts = [("root".to_owned(), wanted)].into_iter().collect();
        held.put(kernel, devices.clone());
        Ok(Allocation([("mem".into(), devices)].into_iter().collect()))
    }

    fn restore(&self, kernel: KernelId, held: &Allocation) {
        if let Some(devices) = held.0.get("mem") {
            self.held.lock().put(kernel, devices.clone());
        }
    }

    fn release(&self, kernel: KernelId) {
        self.held.lock().remove(kernel);
    }

    fn grant(&self, held: &Allocation, grant: &mut Grant) {
        grant.limits.memory = held.total("mem").to_u64();
    }

    fn attached(&self, _held: &Allocation) -> Vec<Value> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_rounded_down_after_the_reserve_is_taken_off() {
        let plugin = MemPlugin::new(100, 10, 16, 1);
        assert_eq!(plugin.capacity().get("mem"), Amount::from(80_u64));
        assert_eq!(MemPlugin::new(5, 10, 16, 1).capacity().get("mem"), Amount::ZERO);
    }

    #[test]
    fn memory_is_not_given_twice() {
        let plugin = MemPlugin::new(100, 0, 1, 1);
        let want = |bytes: u64| [("mem", bytes)].into_iter().collect::<ResourceSlots>();
        let kernel = KernelId::random();
        plugin.allocate(kernel, &want(60)).unwrap();
        assert_eq!(plugin.allocate(KernelId::random(), &want(41)).unwrap_err().code(), code::OVER_CAPACITY);
        plugin.release(kernel);
        plugin.allocate(KernelId::random(), &want(100)).unwrap();
    }
}
