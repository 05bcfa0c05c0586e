//! What a kernel holds, as a value that can be kept.

use std::collections::{BTreeMap, btree_map};

use bai_core::slots::{Amount, ResourceSlots, SlotName, SlotType};
use bai_core::units::{BinarySize, parse_bytes};
use serde::{Deserialize, Serialize};

use super::model::DeviceId;

/// What is held: slot to device to amount. This is what a kernel's record keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Holding(BTreeMap<SlotName, BTreeMap<DeviceId, Amount>>);

impl Holding {
    /// Nothing.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets how much of a device is held.
    pub fn insert(
        &mut self,
        slot: impl Into<SlotName>,
        device: impl Into<DeviceId>,
        amount: impl Into<Amount>,
    ) {
        self.0.entry(slot.into()).or_default().insert(device.into(), amount.into());
    }

    /// Sets all that is held of a slot.
    pub fn replace(
        &mut self,
        slot: impl Into<SlotName>,
        devices: impl IntoIterator<Item = (DeviceId, Amount)>,
    ) {
        self.0.insert(slot.into(), devices.into_iter().collect());
    }

    /// Adds what another holds.
    pub(super) fn add(&mut self, other: &Self) {
        for (slot, devices) in other {
            for (device, amount) in devices {
                let sum = self.amount(slot.as_str(), device.as_str()).saturating_add(*amount);
                self.set(slot, device, sum);
            }
        }
    }

    /// Sets how much of a device is held; nothing leaves no trace.
    /// What is here beyond what is there.
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut rest = Self::new();
        for (slot, devices) in &self.0 {
            for (device, amount) in devices {
                let more = amount.saturating_sub(other.amount(slot.as_str(), device.as_str()));
                if more > Amount::ZERO {
                    rest.set(slot, device, more);
                }
            }
        }
        rest
    }

    pub(super) fn set(&mut self, slot: &SlotName, device: &DeviceId, amount: Amount) {
        let devices = self.0.entry(slot.clone()).or_default();
        if amount.is_zero() {
            devices.remove(device);
        } else {
            devices.insert(device.clone(), amount);
        }
        if devices.is_empty() {
            self.0.remove(slot);
        }
    }

    /// The devices held of a slot.
    pub fn devices(&self, slot: &str) -> impl Iterator<Item = (&DeviceId, Amount)> {
        self.0.get(slot).into_iter().flatten().map(|(device, amount)| (device, *amount))
    }

    /// How much of a device is held.
    pub fn amount(&self, slot: &str, device: &str) -> Amount {
        self.0.get(slot).and_then(|devices| devices.get(device)).copied().unwrap_or_default()
    }

    /// The total of a slot.
    pub fn total(&self, slot: &str) -> Amount {
        self.devices(slot).map(|(_, amount)| amount).sum()
    }

    /// The total of every slot.
    pub fn totals(&self) -> ResourceSlots {
        self.0.keys().map(|slot| (slot.clone(), self.total(slot.as_str()))).collect()
    }

    /// Slot by slot, in the order of their names.
    pub fn iter(&self) -> btree_map::Iter<'_, SlotName, BTreeMap<DeviceId, Amount>> {
        self.0.iter()
    }

    /// The lines `<SLOT>_SHARES=<device>:<amount>,…` of `resource.txt` (agent specification, section 8). Sizes have
    /// the greatest suffix that is exact, so that nothing is lost on the way back.
    pub fn resource_lines(&self) -> Vec<String> {
        let line = |(slot, devices): (&SlotName, &BTreeMap<DeviceId, Amount>)| {
            let shares: Vec<_> = devices
                .iter()
                .map(|(device, amount)| format!("{device}:{}", amount_text(slot.as_str(), *amount)))
                .collect();
            format!("{}_SHARES={}", slot.as_str().to_uppercase(), shares.join(","))
        };
        self.iter().map(line).collect()
    }
}

impl<'a> IntoIterator for &'a Holding {
    type Item = (&'a SlotName, &'a BTreeMap<DeviceId, Amount>);
    type IntoIter = btree_map::Iter<'a, SlotName, BTreeMap<DeviceId, Amount>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// What a `resource.txt` says is held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceText {
    /// The part that was understood.
    pub held: Holding,
    /// Lines and shares that were not: a slot the node does not know, or no amount. Worth a warning.
    pub ignored: Vec<String>,
}

impl ResourceText {
    /// Reads the `_SHARES` lines of the slots in `known`; other lines say nothing about devices and are skipped.
    pub fn parse<'a>(text: &str, known: impl IntoIterator<Item = &'a SlotName>) -> Self {
        let known: Vec<_> = known.into_iter().collect();
        let mut read = Self::default();
        for line in text.lines() {
            let Some((name, shares)) =
                line.split_once('=').and_then(|(key, value)| Some((key.strip_suffix("_SHARES")?, value)))
            else {
                continue;
            };
            match known.iter().find(|slot| slot.as_str().eq_ignore_ascii_case(name)) {
                Some(slot) => read.add_shares(slot, shares),
                None => read.ignored.push(line.to_owned()),
            }
        }
        read
    }

    fn add_shares(&mut self, slot: &SlotName, shares: &str) {
        for share in shares.split(',').filter(|share| !share.is_empty()) {
            let amount =
                share.rsplit_once(':').and_then(|(device, text)| Some((device, read_amount(slot, text)?)));
            match amount {
                Some((device, amount)) => self.held.insert(slot.clone(), device, amount),
                None => self.ignored.push(share.to_owned()),
            }
        }
    }
}

fn amount_text(slot: &str, amount: Amount) -> String {
    match amount.to_u64().filter(|_| SlotType::guess(slot) == SlotType::Bytes && amount.is_integer()) {
        Some(bytes) => BinarySize::Bytes(bytes).to_string(),
        None => amount.to_string(),
    }
}

/// A finite amount that is not negative.
fn read_amount(slot: &SlotName, text: &str) -> Option<Amount> {
    let amount = match SlotType::guess(slot.as_str()) {
        SlotType::Bytes => parse_bytes(text),
        _ => text.parse(),
    };
    amount.ok().filter(|amount| !amount.is_negative() && !amount.is_infinite())
}
