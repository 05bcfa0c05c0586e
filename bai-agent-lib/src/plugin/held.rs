//! The devices of one plugin, and what each kernel holds of them.

use std::collections::HashMap;

use bai_core::error::Result;
use bai_core::id::KernelId;
use bai_core::slots::ResourceSlots;
use bai_scheduler::device::{self, AffinityHint, DevicePool, Family, Holding, PoolOptions, PoolSetup};
use parking_lot::Mutex;

use super::Allocation;

/// A pool that keeps its allocations by kernel. The first request ends the time in which kernels can be restored.
#[derive(Debug)]
pub(super) struct KernelDevices {
    stage: Mutex<Stage>,
    held: Mutex<HashMap<KernelId, device::Allocation>>,
}

#[derive(Debug)]
enum Stage {
    Restoring(PoolSetup),
    Open(DevicePool),
}

impl KernelDevices {
    pub(super) fn new(family: Family) -> Self {
        let setup = PoolSetup::new(vec![family], PoolOptions::default());
        Self { stage: Mutex::new(Stage::Restoring(setup)), held: Mutex::default() }
    }

    /// Takes all of `wanted`, or nothing.
    pub(super) fn allocate(&self, kernel: KernelId, wanted: &ResourceSlots) -> Result<Allocation> {
        let taken = self.open().allocate(wanted, &AffinityHint::default())?;
        let allocation = to_record(taken.held());
        if !taken.held().is_empty() {
            self.held.lock().insert(kernel, taken);
        }
        Ok(allocation)
    }

    /// Takes again what a kernel already holds.
    pub(super) fn restore(&self, kernel: KernelId, held: Holding) {
        match &*self.stage.lock() {
            Stage::Restoring(setup) => {
                self.held.lock().insert(kernel, setup.restore(held));
                for excess in setup.excess() {
                    tracing::warn!(%kernel, ?excess, "more of a device is in use than it offers");
                }
            }
            Stage::Open(_) => tracing::error!(%kernel, "devices cannot be restored any more"),
        }
    }

    /// Gives back everything of the kernel. Idempotent.
    pub(super) fn release(&self, kernel: KernelId) {
        self.held.lock().remove(&kernel);
    }

    /// The pool, which accepts work from now on.
    fn open(&self) -> DevicePool {
        let mut stage = self.stage.lock();
        if let Stage::Open(pool) = &*stage {
            return pool.clone();
        }
        let nothing = Stage::Restoring(PoolSetup::new(Vec::new(), PoolOptions::default()));
        let pool = match std::mem::replace(&mut *stage, nothing) {
            Stage::Restoring(setup) => setup.open(),
            Stage::Open(pool) => pool,
        };
        *stage = Stage::Open(pool.clone());
        pool
    }
}

/// The part of a kernel's allocation that is of these slots.
pub(super) fn from_record<'a>(held: &Allocation, slots: impl IntoIterator<Item = &'a str>) -> Holding {
    let mut part = Holding::new();
    for slot in slots {
        for (device, amount) in held.0.get(slot).into_iter().flatten() {
            part.insert(slot, device.as_str(), *amount);
        }
    }
    part
}

fn to_record(held: &Holding) -> Allocation {
    let slots = held.iter().map(|(slot, devices)| {
        (slot.clone(), devices.iter().map(|(device, amount)| (device.to_string(), *amount)).collect())
    });
    Allocation(slots.collect())
}
