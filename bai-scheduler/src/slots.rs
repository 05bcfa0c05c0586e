//! Slots as the scheduler counts them: interned names and exact whole numbers (spec scheduler.md, section 10).
//!
//! A [`SlotTable`] belongs to one resource group and gives each slot name a small number, the [`SlotId`]. An amount is an
//! `i64` of the slot's unit: bytes for byte slots, thousandths for all others. Nothing is rounded on the way through the
//! scheduler; at the edge a demand is rounded up and a supply down, so that rounding never over-allocates.
//!
//! [`Amounts`] keeps only what is not zero, so a request that names a slot with zero and one that does not name it are
//! the same thing, and no zero ever reaches the books.
//!
//! ```
//! use bai_core::slots::{ResourceSlots, SlotTypes};
//! use bai_scheduler::slots::SlotTable;
//!
//! let mut table = SlotTable::new(SlotTypes::new());
//! let asked = table.demand(&ResourceSlots::from_iter([("cpu", 2_u64), ("cuda.device", 0)]))?;
//! assert_eq!(asked.iter().count(), 1);
//! let cpu = table.find("cpu").unwrap();
//! assert_eq!(asked.of(cpu), 2_000);
//! assert_eq!(table.text(cpu, 2_500), "2.5");
//! # Ok::<(), bai_core::Error>(())
//! ```

use std::collections::HashMap;

use bai_core::Result;
use bai_core::error::{Error, code};
use bai_core::slots::{Amount, ResourceSlots, SlotName, SlotType, SlotTypes};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use smallvec::SmallVec;

/// A whole number of the unit of a slot: bytes, or thousandths.
pub type Units = i64;

/// No limit. Half of what fits, so that a sum of two never wraps.
pub const UNLIMITED: Units = i64::MAX / 2;

/// The number of a slot in its [`SlotTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(u16);

impl SlotId {
    /// How many kernels an agent may hold: counted like a slot, so that the limit needs no code of its own.
    pub(crate) const KERNELS: Self = Self(0);

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The slots of one resource group.
#[derive(Debug, Clone)]
pub struct SlotTable {
    names: Vec<SlotName>,
    types: Vec<SlotType>,
    ids: HashMap<SlotName, SlotId>,
    known: SlotTypes,
}

impl SlotTable {
    /// A table in which no name has a number yet; `known` says how their amounts are counted.
    pub fn new(known: SlotTypes) -> Self {
        Self {
            names: vec![SlotName::from("kernels")],
            types: vec![SlotType::Bytes], // in whole numbers, that is
            ids: HashMap::new(),
            known,
        }
    }

    /// How many numbers are given, the one for the kernels of an agent included.
    pub fn width(&self) -> usize {
        self.names.len()
    }

    /// All numbers of slots.
    pub fn ids(&self) -> impl Iterator<Item = SlotId> + use<> {
        let last = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
        (SlotId::KERNELS.0 + 1..last).map(SlotId)
    }

    /// The number of a name that has one.
    pub fn find(&self, name: &str) -> Option<SlotId> {
        self.ids.get(name).copied()
    }

    /// The name that has this number.
    pub fn name(&self, slot: SlotId) -> &str {
        self.names.get(slot.index()).map_or("", SlotName::as_str)
    }

    /// The number of a name, which it gets now if it has none.
    ///
    /// # Errors
    /// `Invalid` when there are more than 65,535 names.
    pub fn intern(&mut self, name: &SlotName) -> Result<SlotId> {
        if let Some(id) = self.ids.get(name) {
            return Ok(*id);
        }
        let number = u16::try_from(self.names.len())
            .map_err(|_| Error::of(code::INVALID_SLOTS, "too many slot names in one resource group"))?;
        self.names.push(name.clone());
        self.types.push(self.known.type_of(name.as_str()));
        self.ids.insert(name.clone(), SlotId(number));
        Ok(SlotId(number))
    }

    /// What somebody asks for, rounded up to whole units.
    ///
    /// # Errors
    /// `Invalid` when an amount is negative.
    pub fn demand(&mut self, slots: &ResourceSlots) -> Result<Amounts> {
        self.convert(slots, Decimal::ceil)
    }

    /// What somebody has, rounded down to whole units.
    ///
    /// # Errors
    /// `Invalid` when an amount is negative.
    pub fn supply(&mut self, slots: &ResourceSlots) -> Result<Amounts> {
        self.convert(slots, Decimal::floor)
    }

    /// The slots that are named with zero, in the order of their names: what the request wants to leave to others.
    ///
    /// # Errors
    /// As for [`SlotTable::intern`].
    pub fn zeros(&mut self, slots: &ResourceSlots) -> Result<Vec<SlotId>> {
        let zeros = slots.iter().filter(|(_, amount)| amount.is_zero());
        zeros.map(|(name, _)| self.intern(name)).collect()
    }

    /// Amounts times seconds, which may be far larger than amounts.
    pub(crate) fn volume(&mut self, slots: &ResourceSlots) -> Result<Vec<(SlotId, u128)>> {
        let mut volume = Vec::new();
        for (name, amount) in slots {
            let slot = self.intern(name)?;
            let scale = Decimal::from(self.per_one(slot));
            let scaled = amount.finite().and_then(|number| number.checked_mul(scale));
            volume.push((slot, scaled.and_then(|number| number.to_u128()).unwrap_or(0)));
        }
        Ok(volume)
    }

    fn convert(&mut self, slots: &ResourceSlots, round: fn(&Decimal) -> Decimal) -> Result<Amounts> {
        let mut amounts = Amounts::default();
        for (name, amount) in slots {
            if amount.is_negative() {
                let error = Error::of(code::INVALID_SLOTS, "an amount must not be negative");
                return Err(error.with("slot", name.as_str()));
            }
            if !amount.is_zero() {
                let slot = self.intern(name)?;
                amounts.add(slot, self.units(slot, *amount, round));
            }
        }
        Ok(amounts)
    }

    fn units(&self, slot: SlotId, amount: Amount, round: fn(&Decimal) -> Decimal) -> Units {
        let scale = Decimal::from(self.per_one(slot));
        let scaled = amount.finite().and_then(|number| number.checked_mul(scale));
        scaled.and_then(|number| round(&number).to_i64()).map_or(UNLIMITED, |units| units.min(UNLIMITED))
    }

    /// Units of one whole: 1 for bytes, 1,000 for the others.
    fn per_one(&self, slot: SlotId) -> i64 {
        match self.types.get(slot.index()) {
            Some(SlotType::Bytes) => 1,
            _ => 1_000,
        }
    }

    /// The amount as the rest of the system writes it.
    pub fn amount(&self, slot: SlotId, units: Units) -> Amount {
        if units >= UNLIMITED {
            return Amount::Infinity;
        }
        Amount::from((Decimal::from(units) / Decimal::from(self.per_one(slot))).normalize())
    }

    /// The amount for people: bytes with a binary suffix.
    pub fn text(&self, slot: SlotId, units: Units) -> String {
        self.known.type_of(self.name(slot)).describe(self.amount(slot, units))
    }
}

/// Amounts by slot, none of them zero, in the order of the numbers. Up to eight need no memory of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Amounts(SmallVec<[(SlotId, Units); 8]>);

impl Amounts {
    /// The amount of a slot.
    pub fn of(&self, slot: SlotId) -> Units {
        self.0.iter().find(|(known, _)| *known == slot).map_or(0, |(_, units)| *units)
    }

    /// All slots that are not zero.
    pub fn iter(&self) -> impl Iterator<Item = (SlotId, Units)> + '_ {
        self.0.iter().copied()
    }

    /// Whether all amounts are zero.
    pub fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds to one slot; what becomes zero is dropped.
    pub(crate) fn add(&mut self, slot: SlotId, units: Units) {
        match self.0.binary_search_by_key(&slot, |(known, _)| *known) {
            Ok(at) => {
                self.0[at].1 = self.0[at].1.saturating_add(units).min(UNLIMITED);
                if self.0[at].1 == 0 {
                    self.0.remove(at);
                }
            }
            Err(at) if units != 0 => self.0.insert(at, (slot, units)),
            Err(_) => {}
        }
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        other.iter().for_each(|(slot, units)| self.add(slot, units));
    }

    pub(crate) fn take_all(&mut self, other: &Self) {
        other.iter().for_each(|(slot, units)| self.add(slot, -units));
    }

    pub(crate) fn without(&self, slot: SlotId) -> Self {
        Self(self.0.iter().copied().filter(|(known, _)| *known != slot).collect())
    }

    /// Whether a row of amounts, indexed by slot, has at least this much of each.
    pub(crate) fn fits(&self, row: &[Units]) -> bool {
        self.0.iter().all(|(slot, units)| row.get(slot.index()).is_some_and(|has| has >= units))
    }

    pub(crate) fn add_to(&self, row: &mut [Units]) {
        for (slot, units) in &self.0 {
            if let Some(cell) = row.get_mut(slot.index()) {
                *cell = cell.saturating_add(*units);
            }
        }
    }

    pub(crate) fn take_from(&self, row: &mut [Units]) {
        for (slot, units) in &self.0 {
            if let Some(cell) = row.get_mut(slot.index()) {
                *cell = cell.saturating_sub(*units);
            }
        }
    }
}

/// Importance of slots: names of device families or of single slots, most important first; others follow by name (W-6: a
/// family such as `cuda` stands for `cuda.device` and `cuda.shares`).
#[derive(Debug, Clone)]
pub struct SlotOrder(Vec<String>);

impl SlotOrder {
    /// An order by `names`.
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }

    /// Sorts slots, most important first.
    pub fn sort(&self, slots: &mut [SlotId], table: &SlotTable) {
        slots.sort_by(|a, b| self.key(table.name(*a)).cmp(&self.key(table.name(*b))));
    }

    fn key<'n>(&self, name: &'n str) -> (usize, &'n str) {
        (self.rank(name), name)
    }

    /// Place of a slot in the list; those that are not listed share the last one.
    pub(crate) fn rank(&self, name: &str) -> usize {
        let family = name.split_once('.').map_or(name, |(family, _)| family);
        let listed = |listed: &String| listed == name || listed == family;
        self.0.iter().position(listed).unwrap_or(self.0.len())
    }
}

impl Default for SlotOrder {
    /// Accelerators before cores before memory.
    fn default() -> Self {
        Self::new(["cuda", "rocm", "tpu", "cpu", "mem"])
    }
}

#[cfg(test)]
mod tests;
