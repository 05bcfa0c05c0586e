//! A vector of amounts by slot name.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fmt;
use std::iter::Sum;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Amount, SlotName, SlotType};
use crate::error::{Error, Result, code};
use crate::units;

/// Amounts by slot name, in the order of the names. A missing slot counts as zero.
///
/// Equality and order follow that rule, and the order is partial: `a <= b` means that every amount of `a` is at
/// most the one of `b`. Neither of `{"cpu": 1}` and `{"mem": 1}` is less than the other.
///
/// In JSON it is an object of decimal strings; on input numbers do as well, byte slots may carry a binary
/// suffix, and entries that are null are left out.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub struct ResourceSlots(BTreeMap<SlotName, Amount>);

impl ResourceSlots {
    /// No slots at all, which is zero of everything.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The amount of a slot; zero when it is not named.
    pub fn get(&self, name: &str) -> Amount {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Whether the slot is named, be it with zero.
    pub fn names(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Sets the amount of a slot.
    pub fn insert(&mut self, name: impl Into<SlotName>, amount: impl Into<Amount>) {
        self.0.insert(name.into(), amount.into());
    }

    /// Removes a slot and returns its amount.
    pub fn remove(&mut self, name: &str) -> Option<Amount> {
        self.0.remove(name)
    }

    /// The named slots, in the order of their names.
    pub fn iter(&self) -> btree_map::Iter<'_, SlotName, Amount> {
        self.0.iter()
    }

    /// How many slots are named.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no slot is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every amount is zero.
    pub fn is_zero(&self) -> bool {
        self.0.values().all(|amount| amount.is_zero())
    }

    /// Whether any amount is below zero.
    pub fn has_negative(&self) -> bool {
        self.0.values().any(|amount| amount.is_negative())
    }

    /// Whether every amount is at most the one in `capacity`.
    pub fn fits_in(&self, capacity: &Self) -> bool {
        self.first_excess(capacity).is_none()
    }

    /// The first slot of which there is more here than in `capacity`.
    pub fn first_excess<'a>(&'a self, capacity: &'a Self) -> Option<&'a SlotName> {
        let unnamed =
            capacity.0.iter().filter(|(name, limit)| limit.is_negative() && !self.names(name.as_str()));
        self.0
            .iter()
            .filter(|(name, amount)| **amount > capacity.get(name.as_str()))
            .chain(unnamed)
            .map(|(name, _)| name)
            .min()
    }

    /// The sum, slot by slot.
    ///
    /// # Errors
    /// `Invalid` when a sum is too large to be represented.
    pub fn checked_add(&self, other: &Self) -> Result<Self> {
        self.zip_with(other, "the sum cannot be represented", Amount::checked_add)
    }

    /// The difference, slot by slot; it may have negative amounts.
    ///
    /// # Errors
    /// `Invalid` when infinity would have to be taken away, or a difference cannot be represented.
    pub fn checked_sub(&self, other: &Self) -> Result<Self> {
        self.zip_with(other, "the difference cannot be represented", Amount::checked_sub)
    }

    /// Every amount times a whole number, for example the kernels of a cluster session.
    ///
    /// # Errors
    /// `Invalid` when a product is too large to be represented.
    pub fn checked_mul(&self, times: u64) -> Result<Self> {
        self.zip_with(&Self::new(), "the product cannot be represented", |amount, _| {
            amount.checked_mul(times)
        })
    }

    /// Adds `other` in place. Amounts stop at the greatest that can be represented.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, Amount::saturating_add);
    }

    /// Takes `other` away in place. Amounts stop at zero.
    pub fn take(&mut self, other: &Self) {
        self.combine(other, Amount::saturating_sub);
    }

    /// What is left of `self` after taking `other` away, at least zero of everything.
    #[must_use]
    pub fn remaining(&self, other: &Self) -> Self {
        let mut left = self.clone();
        left.take(other);
        left
    }

    /// The smaller amount of each slot that either names.
    #[must_use]
    pub fn min_with(&self, other: &Self) -> Self {
        let mut least = self.clone();
        least.combine(other, Amount::min);
        least
    }

    /// Without the slots that are zero and without trailing zeros: one text for equal values.
    #[must_use]
    pub fn normalized(&self) -> Self {
        self.iter()
            .filter(|(_, amount)| !amount.is_zero())
            .map(|(name, amount)| (name.clone(), amount.normalized()))
            .collect()
    }

    /// Checks that the request does not ask for two slots that exclude each other: whole devices and shares of
    /// devices of the same family.
    ///
    /// # Errors
    /// `Invalid` when it does.
    pub fn check_exclusive(&self) -> Result<()> {
        for (name, amount) in &self.0 {
            let Some(family) = name.as_str().strip_suffix(".shares").filter(|_| !amount.is_zero()) else {
                continue;
            };
            let device = format!("{family}.device");
            if !self.get(&device).is_zero() {
                return Err(Error::of(code::INVALID_SLOTS, "these slots exclude each other")
                    .with("slots", format_args!("{device}, {name}")));
            }
        }
        Ok(())
    }

    fn combine(&mut self, other: &Self, op: impl Fn(Amount, Amount) -> Amount) {
        for amount in
            self.0.iter_mut().filter(|(name, _)| !other.names(name.as_str())).map(|(_, amount)| amount)
        {
            *amount = op(*amount, Amount::ZERO);
        }
        for (name, &theirs) in &other.0 {
            if let Some(ours) = self.0.get_mut(name) {
                *ours = op(*ours, theirs);
            } else {
                self.0.insert(name.clone(), op(Amount::ZERO, theirs));
            }
        }
    }

    fn zip_with(
        &self,
        other: &Self,
        problem: &'static str,
        op: impl Fn(Amount, Amount) -> Option<Amount>,
    ) -> Result<Self> {
        let mut result = BTreeMap::new();
        for name in self.0.keys().chain(other.0.keys().filter(|name| !self.names(name.as_str()))) {
            let amount = op(self.get(name.as_str()), other.get(name.as_str()))
                .ok_or_else(|| Error::of(code::INVALID_SLOTS, problem).with("slot", name))?;
            result.insert(name.clone(), amount);
        }
        Ok(Self(result))
    }
}

impl PartialEq for ResourceSlots {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl Eq for ResourceSlots {}

impl PartialOrd for ResourceSlots {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let mut result = Ordering::Equal;
        let only_theirs = other.0.keys().filter(|name| !self.names(name.as_str()));
        for name in self.0.keys().chain(only_theirs) {
            let here = self.get(name.as_str()).cmp(&other.get(name.as_str()));
            if result == Ordering::Equal {
                result = here;
            } else if here != Ordering::Equal && here != result {
                return None;
            }
        }
        Some(result)
    }
}

impl<N: Into<SlotName>, A: Into<Amount>> FromIterator<(N, A)> for ResourceSlots {
    fn from_iter<I: IntoIterator<Item = (N, A)>>(slots: I) -> Self {
        Self(slots.into_iter().map(|(name, amount)| (name.into(), amount.into())).collect())
    }
}

impl<'a> Sum<&'a Self> for ResourceSlots {
    fn sum<I: Iterator<Item = &'a Self>>(all: I) -> Self {
        all.fold(Self::new(), |mut total, slots| {
            total.add(slots);
            total
        })
    }
}

impl IntoIterator for ResourceSlots {
    type Item = (SlotName, Amount);
    type IntoIter = btree_map::IntoIter<SlotName, Amount>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a ResourceSlots {
    type Item = (&'a SlotName, &'a Amount);
    type IntoIter = btree_map::Iter<'a, SlotName, Amount>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for ResourceSlots {
    /// `cpu=2, mem=1073741824`, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, amount)) in self.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{name}={amount}")?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for ResourceSlots {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SlotsVisitor)
    }
}

struct SlotsVisitor;

impl<'de> Visitor<'de> for SlotsVisitor {
    type Value = ResourceSlots;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of slot names and amounts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ResourceSlots, A::Error> {
        let mut slots = BTreeMap::new();
        while let Some((name, stored)) = map.next_entry::<SlotName, Option<Stored>>()? {
            let Some(stored) = stored else { continue };
            let amount =
                stored.amount(&name).map_err(|error| de::Error::custom(error.with("slot", &name)))?;
            slots.insert(name, amount);
        }
        Ok(ResourceSlots(slots))
    }
}

/// An amount whose meaning may depend on the name of its slot.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Amount(Amount),
    Text(String),
}

impl Stored {
    fn amount(self, name: &SlotName) -> Result<Amount> {
        match self {
            Self::Amount(amount) => Ok(amount),
            Self::Text(text) if SlotType::guess(name.as_str()) == SlotType::Bytes => {
                units::parse_bytes(&text)
            }
            Self::Text(text) => text.parse(),
        }
    }
}
