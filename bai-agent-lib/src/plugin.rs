//! Compute plugins: what devices a node has, and what a kernel gets of them (spec agent.md, sections 10 and 11).
//!
//! Who holds what is kept by one pool for all families ([`bai_scheduler::device`]). A kernel's share is a value that lives with
//! the kernel; a copy of what it holds is in the kernel's record. What living kernels hold is put back from the records
//! before the agent accepts work, and only then.

mod cpu;
mod mem;
pub mod mock;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bai_core::error::{Error, Result, code};
use bai_core::port::backend::Limits;
use bai_core::slots::{Amount, ResourceSlots, SlotName, SlotType, SlotTypes};
use bai_scheduler::device::{
    AffinityHint, Allocation, DevicePool, Excess, Family, Holding, PoolOptions, PoolSetup,
};
use serde_json::{Map, Value, json};

pub use cpu::CpuPlugin;
pub use mem::MemPlugin;

use crate::options::AgentOptions;

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

/// A family of devices. It says what there is and what a device means to a kernel; it does not keep account of them.
/// Calls must not block.
pub trait ComputePlugin: fmt::Debug + Send + Sync + 'static {
    /// Name of the family: the part of its slot names before the first dot.
    fn key(&self) -> &str;

    /// Version for the agent's report.
    fn version(&self) -> String;

    /// Slots it serves.
    fn slot_types(&self) -> Vec<(SlotName, SlotType)>;

    /// The devices, reserved parts taken off. Asked for once, before the agent accepts work.
    fn family(&self) -> Family;

    /// Brings what living kernels hold into the form of [`ComputePlugin::family`], when they were started under another
    /// version or configuration. Called once, before their devices are put back.
    fn adopt(&self, _living: &mut [&mut Holding]) {}

    /// What the kernel gets for what it holds.
    fn grant(&self, held: &Holding, grant: &mut Grant);

    /// Devices shown to users; empty for none.
    fn attached(&self, held: &Holding) -> Vec<Value>;
}

/// All plugins of an agent that does not accept work yet.
#[derive(Debug)]
pub(crate) struct PluginSetup {
    all: Vec<Box<dyn ComputePlugin>>,
    families: Vec<Family>,
    pool: PoolSetup,
}

impl PluginSetup {
    /// Their devices under the rules of `options`, held by nobody.
    pub(crate) fn new(plugins: Vec<Box<dyn ComputePlugin>>, options: &AgentOptions) -> Self {
        let mut families: Vec<_> = plugins.iter().map(|plugin| plugin.family()).collect();
        for family in &mut families {
            let masked = options.device_mask.get(&family.key).map_or(&[][..], Vec::as_slice);
            for device in family.slots.iter_mut().flat_map(|slot| &mut slot.devices) {
                device.excluded |= masked.iter().any(|id| id == device.id.as_str());
            }
        }
        for (family, device) in unknown(&families, &options.device_mask) {
            tracing::warn!(%family, %device, "the device mask names a device that is not there");
        }
        let rules = PoolOptions {
            order: options.allocation_order.clone(),
            affinity: options.affinity_policy,
            ..PoolOptions::default()
        };
        Self { pool: PoolSetup::new(families.clone(), rules), families, all: plugins }
    }

    /// Brings what living kernels hold into the form of these plugins.
    pub(crate) fn adopt(&self, living: &mut [&mut Holding]) {
        self.all.iter().for_each(|plugin| plugin.adopt(living));
    }

    /// Takes again what a kernel already holds. Never fails: what is running cannot be argued with.
    pub(crate) fn restore(&self, held: Holding) -> Allocation {
        self.pool.restore(held)
    }

    /// Devices of which more is held than they offer.
    pub(crate) fn excess(&self) -> Vec<Excess> {
        self.pool.excess()
    }

    /// Begins to accept work.
    pub(crate) fn open(self) -> Plugins {
        let devices = self.families.iter().flat_map(|family| &family.slots).flat_map(|slot| &slot.devices);
        let nodes: BTreeSet<_> = devices.filter_map(|device| device.numa_node).collect();
        Plugins { all: self.all, pool: self.pool.open(), has_nodes: nodes.len() > 1 }
    }
}

/// What a mask names and no family has: a device meant to be kept out of use may be in use under another id.
fn unknown<'a>(
    families: &[Family],
    mask: &'a BTreeMap<String, Vec<String>>,
) -> impl Iterator<Item = (&'a String, &'a String)> {
    let is_there = |key: &str, id: &str| {
        let family = families.iter().filter(|family| family.key == key);
        family.flat_map(|family| &family.slots).flat_map(|slot| &slot.devices).any(|it| it.id.as_str() == id)
    };
    let named = mask.iter().flat_map(|(family, ids)| ids.iter().map(move |id| (family, id)));
    named.filter(move |(family, id)| !is_there(family, id))
}

/// All plugins of an agent, and who holds what of their devices.
#[derive(Debug)]
pub(crate) struct Plugins {
    all: Vec<Box<dyn ComputePlugin>>,
    pool: DevicePool,
    has_nodes: bool,
}

impl Plugins {
    pub(crate) fn slot_types(&self) -> SlotTypes {
        self.all.iter().flat_map(|plugin| plugin.slot_types()).collect()
    }

    /// What there is in total, reserved parts and masked devices taken off.
    pub(crate) fn capacity(&self) -> ResourceSlots {
        self.pool.capacity()
    }

    /// The sum of what is held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> Holding {
        self.pool.held()
    }

    /// Whether devices are nearer to some than to others.
    pub(crate) fn has_nodes(&self) -> bool {
        self.has_nodes
    }

    /// Name to version, for the report.
    pub(crate) fn describe(&self) -> Value {
        let versions =
            self.all.iter().map(|plugin| (plugin.key().to_owned(), json!({"version": plugin.version()})));
        Value::Object(versions.collect())
    }

    /// Takes all of `wanted` until the value is dropped, or nothing.
    ///
    /// # Errors
    /// `Conflict` ([`code::OVER_CAPACITY`]) when there is not enough left, `Invalid` ([`code::INVALID_SLOTS`]) when the
    /// amounts make no sense.
    pub(crate) fn allocate(&self, wanted: &ResourceSlots, hint: &AffinityHint) -> Result<Allocation> {
        check(wanted)?;
        Ok(self.pool.allocate(wanted, hint)?)
    }

    /// As [`Plugins::allocate`], for the successor of who holds `held`, which may get what is held there.
    pub(crate) fn succeed(
        held: &mut Allocation,
        wanted: &ResourceSlots,
        hint: &AffinityHint,
    ) -> Result<Allocation> {
        check(wanted)?;
        Ok(held.succeed(wanted, hint)?)
    }

    pub(crate) fn grant(&self, held: &Holding) -> Grant {
        let mut grant = Grant::default();
        self.all.iter().for_each(|plugin| plugin.grant(held, &mut grant));
        grant
    }

    pub(crate) fn attached(&self, held: &Holding) -> Map<String, Value> {
        self.all
            .iter()
            .map(|plugin| (plugin.key().to_owned(), Value::from(plugin.attached(held))))
            .filter(|(_, devices)| devices.as_array().is_some_and(|devices| !devices.is_empty()))
            .collect()
    }
}

fn check(wanted: &ResourceSlots) -> Result<()> {
    wanted.check_exclusive()?;
    let missing = ["cpu", "mem"].into_iter().find(|required| wanted.get(required) <= Amount::ZERO);
    missing.map_or(Ok(()), |slot| {
        Err(Error::of(code::INVALID_SLOTS, "a kernel needs cpu and mem").with("slot", slot))
    })
}

#[cfg(test)]
mod tests;
