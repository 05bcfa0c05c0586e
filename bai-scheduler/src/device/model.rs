//! What a node has to give away.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use bai_core::slots::{Amount, SlotName};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// Name of a device, unique within its slot: a core number, a UUID. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(Arc<str>);

impl DeviceId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Borrow<str> for DeviceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for DeviceId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl From<String> for DeviceId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

/// One device, as it serves one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub id: DeviceId,
    /// How much of the slot it offers: cores times over-commit, bytes, shares.
    pub capacity: Amount,
    /// The NUMA node it belongs to; unknown counts as near to every node.
    pub numa_node: Option<u32>,
    /// Devices of one node and one island have a faster link to each other than to the rest of the node: the same
    /// switch or direct links.
    pub island: Option<u32>,
    /// Kept out of use (`device_mask`): it offers nothing, but what is held of it stays held.
    pub excluded: bool,
}

impl Device {
    /// A device that offers `capacity`, at no known place.
    pub fn new(id: impl Into<DeviceId>, capacity: impl Into<Amount>) -> Self {
        Self { id: id.into(), capacity: capacity.into(), numa_node: None, island: None, excluded: false }
    }

    /// On this NUMA node.
    #[must_use]
    pub fn on_node(mut self, node: u32) -> Self {
        self.numa_node = Some(node);
        self
    }

    /// In this island of its node.
    #[must_use]
    pub fn in_island(mut self, island: u32) -> Self {
        self.island = Some(island);
        self
    }

    /// Kept out of use.
    #[must_use]
    pub fn excluded(mut self) -> Self {
        self.excluded = true;
        self
    }

    /// What it offers.
    pub(super) fn offer(&self) -> Amount {
        if self.excluded { Amount::ZERO } else { self.capacity.max(Amount::ZERO) }
    }
}

/// Which devices a request is spread over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Whole units: the same number from each device as far as they have it. Fractions: one device if one is enough
    /// (the tightest), otherwise the most even split, and of equally even ones the one over fewest devices.
    #[default]
    Evenly,
    /// The devices with most left first, each as far as it goes.
    Fill,
}

/// Rules of a slot whose devices are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    pub(super) quantum: Decimal,
    pub(super) useless_below: Decimal,
    pub(super) whole: bool,
}

impl Fraction {
    /// Amounts are multiples of `quantum`; requests are rounded down to one. `None` unless it is above zero.
    pub fn new(quantum: Decimal) -> Option<Self> {
        let useless_below = Decimal::new(1, 2);
        (quantum > Decimal::ZERO).then_some(Self { quantum, useless_below, whole: false })
    }

    /// A rest of a device below this is of no use to anyone; among equally even splits, one that leaves less of such
    /// rests is preferred. Default: 0.01.
    #[must_use]
    pub fn useless_below(mut self, amount: Decimal) -> Self {
        self.useless_below = amount;
        self
    }

    /// Requests of up to one device must come from one device, and larger ones in even shares
    /// (`allow_fractional_resource_fragmentation = false`).
    #[must_use]
    pub fn unfragmented(mut self) -> Self {
        self.whole = true;
        self
    }
}

impl Default for Fraction {
    /// A quantum of 0.01, fragments allowed.
    fn default() -> Self {
        let hundredth = Decimal::new(1, 2);
        Self { quantum: hundredth, useless_below: hundredth, whole: false }
    }
}

/// How the devices of a slot are given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// In whole units.
    Discrete,
    /// In parts.
    Fractional(Fraction),
    /// One device per request, all of it: the only amount is 1.
    Unique,
}

/// The devices that serve one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotDevices {
    /// The slot.
    pub slot: SlotName,
    /// In which amounts.
    pub sharing: Sharing,
    /// From which devices.
    pub strategy: Strategy,
    /// The devices. Their order breaks ties.
    pub devices: Vec<Device>,
}

impl SlotDevices {
    /// Devices given away in whole units, evenly.
    pub fn discrete(slot: impl Into<SlotName>, devices: Vec<Device>) -> Self {
        Self { slot: slot.into(), sharing: Sharing::Discrete, strategy: Strategy::default(), devices }
    }

    /// Devices given away in parts, evenly.
    pub fn fractional(slot: impl Into<SlotName>, fraction: Fraction, devices: Vec<Device>) -> Self {
        Self {
            slot: slot.into(),
            sharing: Sharing::Fractional(fraction),
            strategy: Strategy::default(),
            devices,
        }
    }

    /// Devices given away one at a time.
    pub fn unique(slot: impl Into<SlotName>, devices: Vec<Device>) -> Self {
        Self { slot: slot.into(), sharing: Sharing::Unique, strategy: Strategy::default(), devices }
    }

    /// With another strategy.
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }
}

/// The devices that one compute plugin serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// Its name: the part of its slot names before the first dot.
    pub key: String,
    /// Names or patterns (`cuda.device:*-mig`) of slots of which one request may name only one.
    pub exclusive: Vec<String>,
    /// Its slots.
    pub slots: Vec<SlotDevices>,
}

impl Family {
    /// A family without exclusive slots.
    pub fn new(key: impl Into<String>, slots: Vec<SlotDevices>) -> Self {
        Self { key: key.into(), exclusive: Vec::new(), slots }
    }

    /// Slots that exclude each other.
    #[must_use]
    pub fn exclusive<P: Into<String>>(mut self, patterns: impl IntoIterator<Item = P>) -> Self {
        self.exclusive = patterns.into_iter().map(Into::into).collect();
        self
    }

    /// Whether `slot` is one of those that exclude each other.
    pub(super) fn excludes(&self, slot: &str) -> bool {
        self.exclusive.iter().any(|pattern| matches(pattern, slot))
    }
}

/// Whether the text fits a pattern in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    (0..=text.len()).filter_map(|at| text.get(at..)).any(|tail| matches(rest, tail))
}
