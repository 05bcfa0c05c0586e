//! Compute plugins: what devices a node has, who holds them, and what a kernel gets of them (spec agent.md, sections 10
//! and 11).
//!
//! Allocations are values kept in kernel records. A plugin's map of who holds what is rebuilt from them before the agent
//! accepts work, and changed only by the kernel that takes or gives back.

mod cpu;
mod held;
mod mem;
pub mod mock;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use bai_core::error::{Error, Result, code};
use bai_core::id::KernelId;
use bai_core::port::backend::Limits;
use bai_core::slots::{Amount, ResourceSlots, SlotName, SlotType, SlotTypes};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use cpu::CpuPlugin;
pub use mem::MemPlugin;

/// Amounts by device of one slot.
pub type DeviceAmounts = BTreeMap<String, Amount>;

/// What a kernel holds: slot to device to amount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Allocation(pub BTreeMap<SlotName, DeviceAmounts>);

impl Allocation {
    /// The total of a slot.
    pub fn total(&self, slot: &str) -> Amount {
        self.0.get(slot).map_or(Amount::ZERO, |devices| devices.values().copied().sum())
    }
}

/// What a plugin adds to the start of a kernel.
#[derive(Debug, Default)]
pub struct Grant {
    /// Limits for the back end.
    pub limits: Limits,
    /// Environment variables.
    pub environ: BTreeMap<String, String>,
    /// Extra lines of `resource.txt`.
    pub resource_lines: Vec<String>,
}

/// A family of devices. Calls are made one at a time for changes and must not block.
pub trait ComputePlugin: fmt::Debug + Send + Sync + 'static {
    /// Name of the family: the part of its slot names before the first dot.
    fn key(&self) -> &str;

    /// Version for the agent's report.
    fn version(&self) -> String;

    /// Slots it serves.
    fn slot_types(&self) -> Vec<(SlotName, SlotType)>;

    /// What there is in total, reserved parts taken off.
    fn capacity(&self) -> ResourceSlots;

    /// Takes `wanted` (only slots of this family, none zero) for `kernel`.
    ///
    /// # Errors
    /// `Conflict` ([`code::OVER_CAPACITY`]) when there is not enough left, `Invalid` ([`code::INVALID_SLOTS`]) when the
    /// amounts make no sense; nothing is taken then.
    fn allocate(&self, kernel: KernelId, wanted: &ResourceSlots) -> Result<Allocation>;

    /// Takes again what a kernel already holds. Never fails: what is running cannot be argued with.
    fn restore(&self, kernel: KernelId, held: &Allocation);

    /// Gives back everything of the kernel. Idempotent.
    fn release(&self, kernel: KernelId);

    /// What the kernel gets for what it holds.
    fn grant(&self, held: &Allocation, grant: &mut Grant);

    /// Devices shown to users; empty for none.
    fn attached(&self, held: &Allocation) -> Vec<Value>;
}

/// All plugins of an agent.
#[derive(Debug)]
pub(crate) struct Plugins {
    plugins: Vec<Box<dyn ComputePlugin>>,
    /// Held while a kernel's slots are taken from several plugins.
    changes: Mutex<()>,
}

impl Plugins {
    pub(crate) fn new(plugins: Vec<Box<dyn ComputePlugin>>) -> Self {
        Self { plugins, changes: Mutex::default() }
    }

    pub(crate) fn slot_types(&self) -> SlotTypes {
        self.plugins.iter().flat_map(|plugin| plugin.slot_types()).collect()
    }

    pub(crate) fn capacity(&self) -> ResourceSlots {
        self.plugins.iter().flat_map(|plugin| plugin.capacity()).collect()
    }

    /// Name to version, for the report.
    pub(crate) fn describe(&self) -> Value {
        let versions =
            self.plugins.iter().map(|plugin| (plugin.key().to_owned(), json!({"version": plugin.version()})));
        Value::Object(versions.collect())
    }

    /// Takes all of `wanted`, or nothing.
    pub(crate) fn allocate(&self, kernel: KernelId, wanted: &ResourceSlots) -> Result<Allocation> {
        let wanted = wanted.normalized();
        self.check(&wanted)?;
        let _changes = self.changes.lock();
        let mut held = Allocation::default();
        for plugin in &self.plugins {
            let part: ResourceSlots =
                wanted.clone().into_iter().filter(|(name, _)| name.family() == plugin.key()).collect();
            match plugin.allocate(kernel, &part) {
                Ok(taken) => held.0.extend(taken.0),
                Err(error) => {
                    self.plugins.iter().for_each(|plugin| plugin.release(kernel));
                    return Err(error);
                }
            }
        }
        Ok(held)
    }

    fn check(&self, wanted: &ResourceSlots) -> Result<()> {
        wanted.check_exclusive()?;
        let known = self.slot_types();
        for required in ["cpu", "mem"] {
            if wanted.get(required) <= Amount::ZERO {
                return Err(
                    Error::of(code::INVALID_SLOTS, "a kernel needs cpu and mem").with("slot", required)
                );
            }
        }
        match wanted.iter().find(|(name, _)| known.get(name.as_str()).is_none()) {
            Some((name, _)) => {
                Err(Error::of(code::INVALID_SLOTS, "this agent has no such resource").with("slot", name))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn restore(&self, kernel: KernelId, held: &Allocation) {
        let _changes = self.changes.lock();
        self.plugins.iter().for_each(|plugin| plugin.restore(kernel, held));
    }

    pub(crate) fn release(&self, kernel: KernelId) {
        let _changes = self.changes.lock();
        self.plugins.iter().for_each(|plugin| plugin.release(kernel));
    }

    pub(crate) fn grant(&self, held: &Allocation) -> Grant {
        let mut grant = Grant::default();
        self.plugins.iter().for_each(|plugin| plugin.grant(held, &mut grant));
        grant
    }

    pub(crate) fn attached(&self, held: &Allocation) -> Map<String, Value> {
        self.plugins
            .iter()
            .map(|plugin| (plugin.key().to_owned(), Value::from(plugin.attached(held))))
            .filter(|(_, devices)| devices.as_array().is_some_and(|devices| !devices.is_empty()))
            .collect()
    }
}

/// The error for a request that does not fit.
fn over_capacity(slot: &str, wanted: Amount, left: Amount) -> Error {
    Error::of(code::OVER_CAPACITY, "not enough of a resource is left on the agent")
        .with("slot", slot)
        .with("requested", wanted)
        .with("left", left)
}

/// Who holds what of one slot, with the sum at hand.
#[derive(Debug, Default)]
struct Holdings {
    by_kernel: HashMap<KernelId, DeviceAmounts>,
    total: Amount,
}

impl Holdings {
    /// Notes what a kernel holds, in place of what it held before.
    fn put(&mut self, kernel: KernelId, devices: DeviceAmounts) {
        self.remove(kernel);
        self.total = self.total.saturating_add(devices.values().copied().sum());
        self.by_kernel.insert(kernel, devices);
    }

    /// What the kernel held, which it no longer does.
    fn remove(&mut self, kernel: KernelId) -> DeviceAmounts {
        let devices = self.by_kernel.remove(&kernel).unwrap_or_default();
        self.total = self.total.saturating_sub(devices.values().copied().sum());
        devices
    }
}
