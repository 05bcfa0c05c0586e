//! Who holds what, and the values that hold it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use bai_core::slots::{Amount, ResourceSlots, SlotName};
use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use super::affinity::{self, AffinityHint, AffinityPolicy};
use super::error::{AllocError, Refused};
use super::holding::Holding;
use super::model::{Device, DeviceId, Family, SlotDevices};
use super::place::Room;
use super::quirks::Quirks;

/// Rules of a whole node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolOptions {
    /// Families in the order in which a request is served: the scarce ones first, because the others follow them to
    /// their NUMA nodes. Families that are not named come before all that are. Default:
    /// [`PoolOptions::ALLOCATION_ORDER`].
    pub order: Vec<String>,
    /// How the first family is spread over NUMA nodes.
    pub affinity: AffinityPolicy,
    /// Recorded behaviour to repeat.
    pub quirks: Quirks,
}

impl PoolOptions {
    /// The default order (`resource.allocation-order`).
    pub const ALLOCATION_ORDER: [&'static str; 5] = ["cuda", "rocm", "tpu", "cpu", "mem"];

    fn sort(&self, families: &mut [Family]) {
        families.sort_by_key(|family| self.order.iter().position(|key| *key == family.key));
    }
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            order: Self::ALLOCATION_ORDER.map(str::to_owned).into(),
            affinity: AffinityPolicy::default(),
            quirks: Quirks::default(),
        }
    }
}

/// The devices of a node before it accepts work: what earlier kernels hold is put back here, and only here.
#[derive(Debug)]
pub struct PoolSetup(DevicePool);

impl PoolSetup {
    /// Devices that nobody holds yet. Of slots and devices of the same name only the first counts.
    pub fn new(families: Vec<Family>, options: PoolOptions) -> Self {
        let (live, held) = (BTreeMap::new(), Holding::new());
        let mut table = Table { families: Vec::new(), options, live, held, next: 0 };
        table.set_families(families);
        Self(DevicePool(Arc::new(Mutex::new(table))))
    }

    /// Holds again what a kernel holds that already runs. Never fails, because what is running cannot be argued with:
    /// devices that are gone, excluded or held twice are held all the same; [`PoolSetup::excess`] tells.
    pub fn restore(&self, held: Holding) -> Allocation {
        self.0.hold(&mut self.0.0.lock(), held)
    }

    /// Devices of which more is held than they offer. Nothing more is given of them until enough came back.
    pub fn excess(&self) -> Vec<Excess> {
        self.0.0.lock().excess()
    }

    /// Begins to accept work.
    pub fn open(self) -> DevicePool {
        self.0
    }
}

/// A device of which more is held than it offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// The slot.
    pub slot: SlotName,
    /// The device.
    pub device: DeviceId,
    /// How much is held.
    pub held: Amount,
    /// How much it offers; zero when the node no longer has it.
    pub offered: Amount,
}

/// The devices of a node. Clones share them.
#[derive(Debug, Clone)]
pub struct DevicePool(Arc<Mutex<Table>>);

impl DevicePool {
    /// Takes all of `wanted`, or nothing. Slots of amount zero are ignored. An empty hint means no preference.
    ///
    /// # Errors
    /// [`AllocError`] with the slot that was refused, and why.
    pub fn allocate(&self, wanted: &ResourceSlots, hint: &AffinityHint) -> Result<Allocation, AllocError> {
        let mut table = self.0.lock();
        let held = table.plan(wanted, hint)?;
        Ok(self.hold(&mut table, held))
    }

    /// Replaces the devices, for example after a change of the plugin's configuration.
    ///
    /// # Errors
    /// [`InUse`] while anything is held; nothing is changed then.
    pub fn rebuild(&self, families: Vec<Family>) -> Result<(), InUse> {
        let mut table = self.0.lock();
        if !table.live.is_empty() {
            return Err(InUse { allocations: table.live.len() });
        }
        table.set_families(families);
        Ok(())
    }

    /// What all devices together offer.
    pub fn capacity(&self) -> ResourceSlots {
        let table = self.0.lock();
        let offer = |slot: &SlotDevices| slot.devices.iter().map(Device::offer).sum::<Amount>();
        table.slots().map(|slot| (slot.slot.clone(), offer(slot))).collect()
    }

    /// What is left of it, in parts that can be given.
    pub fn free(&self) -> ResourceSlots {
        let table = self.0.lock();
        table.slots().map(|slot| (slot.slot.clone(), table.room(slot).allocatable())).collect()
    }

    /// The sum of what is held.
    pub fn held(&self) -> Holding {
        self.0.lock().held.clone()
    }

    fn hold(&self, table: &mut Table, held: Holding) -> Allocation {
        let ticket = table.hold(held.clone());
        Allocation { held, ticket, pool: self.clone() }
    }
}

/// The pool cannot be rebuilt, because something is held of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InUse {
    /// How many allocations are held.
    pub allocations: usize,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "devices are in use (allocations: {})", self.allocations)
    }
}

impl std::error::Error for InUse {}

/// Devices that one kernel holds, until this value is dropped. It serialises as its [`Holding`].
#[derive(Debug)]
pub struct Allocation {
    held: Holding,
    ticket: u64,
    pool: DevicePool,
}

impl Allocation {
    /// What is held.
    pub fn held(&self) -> &Holding {
        &self.held
    }

    /// NUMA nodes of the devices held, for a hint to kernels that should be near.
    pub fn nodes(&self) -> BTreeSet<u32> {
        self.pool.0.lock().nodes(&self.held)
    }

    /// Whether the node still offers all of it. Not so when a device is gone, excluded or held twice since.
    pub fn is_offered(&self) -> bool {
        let excess = self.pool.0.lock().excess();
        excess.iter().all(|excess| self.held.amount(excess.slot.as_str(), excess.device.as_str()).is_zero())
    }
}

impl Allocation {
    /// Takes all of `wanted` for a successor, which may get what is held here. `self` is left with what the successor does not
    /// get of it, so that nobody else gets that before this holder has gone.
    ///
    /// # Errors
    /// As [`DevicePool::allocate`]; nothing is changed then.
    pub fn succeed(&mut self, wanted: &ResourceSlots, hint: &AffinityHint) -> Result<Self, AllocError> {
        let mut table = self.pool.0.lock();
        table.release(self.ticket);
        let next = table.plan(wanted, hint);
        if let Ok(next) = &next {
            self.held = self.held.without(next);
        }
        self.ticket = table.hold(self.held.clone());
        Ok(self.pool.hold(&mut table, next?))
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.pool.0.lock().release(self.ticket);
    }
}

impl Serialize for Allocation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.held.serialize(serializer)
    }
}

/// The devices and what is held of them.
#[derive(Debug)]
struct Table {
    families: Vec<Family>,
    options: PoolOptions,
    /// What is held, by ticket. There is no other account: amounts in use are sums over this.
    live: BTreeMap<u64, Holding>,
    /// Those sums, so that a request need not look at everything that is held. Devices that nobody holds are absent.
    held: Holding,
    next: u64,
}

impl Table {
    fn hold(&mut self, held: Holding) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.held.add(&held);
        self.live.insert(ticket, held);
        ticket
    }

    fn release(&mut self, ticket: u64) {
        for (slot, devices) in &self.live.remove(&ticket).unwrap_or_default() {
            for (device, &part) in devices {
                let left = match self.held.amount(slot.as_str(), device.as_str()).checked_sub(part) {
                    Some(left) if !left.is_infinite() => left,
                    // Kernels of an earlier agent may hold any amount; what is left of infinity takes a new count.
                    _ => self.live.values().map(|held| held.amount(slot.as_str(), device.as_str())).sum(),
                };
                self.held.set(slot, device, left);
            }
        }
    }

    fn set_families(&mut self, mut families: Vec<Family>) {
        let mut slots = HashSet::new();
        for family in &mut families {
            family.slots.retain(|slot| slots.insert(slot.slot.clone()));
            for slot in &mut family.slots {
                let mut ids = HashSet::new();
                slot.devices.retain(|device| ids.insert(device.id.clone()));
            }
        }
        self.options.sort(&mut families);
        self.families = families;
    }

    fn slots(&self) -> impl Iterator<Item = &SlotDevices> {
        self.families.iter().flat_map(|family| &family.slots)
    }

    /// A slot's devices with what is held of them.
    fn room<'a>(&self, slot: &'a SlotDevices) -> Room<'a> {
        let held = |device: &Device| self.held.amount(slot.slot.as_str(), device.id.as_str());
        let used = slot.devices.iter().map(held).collect();
        Room { slot, used, quirks: self.options.quirks }
    }

    fn excess(&self) -> Vec<Excess> {
        let offers: HashMap<_, _> = self
            .slots()
            .flat_map(|slot| slot.devices.iter().map(|device| ((&slot.slot, &device.id), device.offer())))
            .collect();
        let mut excess = Vec::new();
        for (slot, devices) in &self.held {
            for (device, &held) in devices {
                let offered = offers.get(&(slot, device)).copied().unwrap_or_default();
                if held > offered {
                    excess.push(Excess { slot: slot.clone(), device: device.clone(), held, offered });
                }
            }
        }
        excess
    }

    fn nodes(&self, held: &Holding) -> BTreeSet<u32> {
        let is_held =
            |slot: &SlotDevices, id: &DeviceId| held.devices(slot.slot.as_str()).any(|(held, _)| held == id);
        self.slots()
            .flat_map(|slot| slot.devices.iter().filter(|device| is_held(slot, &device.id)))
            .filter_map(|device| device.numa_node)
            .collect()
    }

    /// What `wanted` would get. Changes nothing.
    fn plan(&self, wanted: &ResourceSlots, hint: &AffinityHint) -> Result<Holding, AllocError> {
        let wanted = wanted.normalized();
        self.check(&wanted)?;
        if self.options.affinity == AffinityPolicy::PreferSingleNode && hint.nodes.is_empty() {
            let on_one_node = |node| self.attempt(&wanted, &hint.nodes, Some(node)).ok();
            if let Some(held) = self.candidate_nodes(&wanted).into_iter().find_map(on_one_node) {
                return Ok(held);
            }
        }
        self.attempt(&wanted, &hint.nodes, None)
    }

    fn check(&self, wanted: &ResourceSlots) -> Result<(), AllocError> {
        for (name, &requested) in wanted {
            if !self.slots().any(|slot| slot.slot == *name) {
                let (slot, allocatable) = (name.clone(), Amount::ZERO);
                return Err(AllocError { refused: Refused::UnknownSlot, slot, requested, allocatable });
            }
        }
        for family in &self.families {
            let mut named = family
                .slots
                .iter()
                .filter(|slot| wanted.names(slot.slot.as_str()) && family.excludes(slot.slot.as_str()));
            if let (Some(first), Some(second)) = (named.next(), named.next()) {
                return Err(self.refusal(first, wanted, Refused::ExcludedBy(second.slot.clone())));
            }
        }
        Ok(())
    }

    /// Nodes that may serve the whole request, the least used first: those of the first slot that has nodes.
    fn candidate_nodes(&self, wanted: &ResourceSlots) -> Vec<u32> {
        self.slots()
            .filter(|slot| wanted.names(slot.slot.as_str()))
            .map(|slot| affinity::nodes(&self.room(slot)))
            .find(|nodes| !nodes.is_empty())
            .unwrap_or_default()
    }

    /// Serves family after family; with `only`, from this node (and devices of no known node) alone.
    fn attempt(
        &self,
        wanted: &ResourceSlots,
        near: &BTreeSet<u32>,
        only: Option<u32>,
    ) -> Result<Holding, AllocError> {
        let mut near = near.clone();
        let mut held = Holding::new();
        for slot in self.slots().filter(|slot| wanted.names(slot.slot.as_str())) {
            let room = self.room(slot);
            let choices = affinity::choices(&room, self.options.affinity, &near, only);
            let taken = room
                .plan(wanted.get(slot.slot.as_str()), &choices)
                .map_err(|refused| self.refusal(slot, wanted, refused))?;
            for (index, amount) in taken {
                let device = &slot.devices[index];
                near.extend(device.numa_node);
                held.insert(slot.slot.clone(), device.id.clone(), amount);
            }
        }
        Ok(held)
    }

    fn refusal(&self, slot: &SlotDevices, wanted: &ResourceSlots, refused: Refused) -> AllocError {
        let requested = wanted.get(slot.slot.as_str());
        AllocError { refused, slot: slot.slot.clone(), requested, allocatable: self.room(slot).allocatable() }
    }
}
