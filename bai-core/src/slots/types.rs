//! The slots a cluster knows, and the reading of requests and policies.

use std::collections::BTreeMap;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Amount, ResourceSlots, SlotName, SlotType, TextForm};
use crate::error::{Error, Result, code};
use crate::units::{self, SizeUnit};

/// What is accepted where an amount is given by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputRules {
    /// Amounts below zero.
    pub negative: bool,
    /// Infinity.
    pub infinite: bool,
    /// Amounts above [`InputRules::MAX`], and other values than 0 and 1 for unique and unified slots.
    pub excessive: bool,
    /// A numeric zero (not the text `0`) is dropped before unknown slots are looked for.
    pub drop_numeric_zero: bool,
}

impl InputRules {
    /// The greatest amount of a request: 2^63 - 1, so that no later arithmetic can overflow.
    pub const MAX: i64 = i64::MAX;

    /// What 23.09.10 accepts.
    pub const V23_09_10: Self =
        Self { negative: true, infinite: true, excessive: true, drop_numeric_zero: false };

    /// What 26.8 accepts.
    pub const V26_8: Self = Self { negative: false, drop_numeric_zero: true, ..Self::V23_09_10 };

    /// Ours for session requests: a negative request would lower its owner's usage, and only limits can be
    /// infinite.
    pub const REQUEST: Self =
        Self { negative: false, infinite: false, excessive: false, drop_numeric_zero: true };

    /// Ours for limits: capacities and policies.
    pub const LIMIT: Self = Self { infinite: true, excessive: true, ..Self::REQUEST };

    fn check(self, slot_type: SlotType, amount: Amount) -> Result<Amount> {
        let fail = |message: &str| {
            Err(Error::of(code::INVALID_SLOTS, message).with("value", slot_type.describe(amount)))
        };
        let Some(number) = amount.finite() else {
            return if self.infinite { Ok(amount) } else { fail("the amount must be finite") };
        };
        if number.is_sign_negative() && !number.is_zero() && !self.negative {
            return fail("the amount must not be negative");
        }
        if self.excessive {
            return Ok(amount);
        }
        let whole = matches!(slot_type, SlotType::Unique | SlotType::Unified);
        if whole && !amount.is_zero() && amount != Amount::ONE {
            return fail("the amount must be 0 or 1");
        }
        if number > Decimal::from(Self::MAX) { fail("the amount is too large") } else { Ok(amount) }
    }
}

/// What a policy means for the slots it does not mention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DefaultForUnspecified {
    /// None of them.
    Limited,
    /// Any amount of them.
    Unlimited,
}

impl DefaultForUnspecified {
    /// Text, as in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Limited => "LIMITED",
            Self::Unlimited => "UNLIMITED",
        }
    }

    /// The amount of a slot that is not mentioned.
    pub fn amount(self) -> Amount {
        match self {
            Self::Limited => Amount::ZERO,
            Self::Unlimited => Amount::Infinity,
        }
    }
}

impl FromStr for DefaultForUnspecified {
    type Err = Error;

    /// In any case.
    fn from_str(text: &str) -> Result<Self> {
        [Self::Limited, Self::Unlimited]
            .into_iter()
            .find(|value| text.eq_ignore_ascii_case(value.as_str()))
            .ok_or_else(|| {
                Error::of(code::INVALID_SLOTS, "expected LIMITED or UNLIMITED").with("value", text)
            })
    }
}

/// The types of the slots the cluster knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotTypes(BTreeMap<SlotName, SlotType>);

impl SlotTypes {
    /// A table that knows no slot.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The type of a known slot.
    pub fn get(&self, name: &str) -> Option<SlotType> {
        self.0.get(name).copied()
    }

    /// The type of any slot; guessed from the name when it is unknown.
    pub fn type_of(&self, name: &str) -> SlotType {
        self.get(name).unwrap_or_else(|| SlotType::guess(name))
    }

    /// Registers a slot and returns the type it had before.
    pub fn insert(&mut self, name: impl Into<SlotName>, slot_type: SlotType) -> Option<SlotType> {
        self.0.insert(name.into(), slot_type)
    }

    /// The known slots, in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&SlotName, SlotType)> {
        self.0.iter().map(|(name, slot_type)| (name, *slot_type))
    }

    /// How many slots are known.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no slot is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads one amount that a user gave for a slot.
    ///
    /// # Errors
    /// `Invalid` when it is no amount or the rules forbid it.
    pub fn parse_amount(&self, name: &str, value: &Value, rules: InputRules) -> Result<Amount> {
        let slot_type = self.type_of(name);
        let parsed = match value {
            Value::String(text) => slot_type.parse(text),
            Value::Number(number) => slot_type.parse(&number.to_string()),
            _ => Err(Error::of(code::INVALID_SLOTS, "expected a number or its text")),
        };
        parsed.and_then(|amount| rules.check(slot_type, amount)).map_err(|error| error.with("slot", name))
    }

    /// Reads the slots a user asks for. Null entries are dropped; every known slot that is not asked for
    /// becomes zero.
    ///
    /// # Errors
    /// `Invalid` when a slot is unknown or an amount is not acceptable.
    pub fn parse_input(&self, input: &Map<String, Value>, rules: InputRules) -> Result<ResourceSlots> {
        let mut slots = self.filled_with(Amount::ZERO);
        for (name, value) in input {
            let dropped = value.is_null() || (rules.drop_numeric_zero && value.as_f64() == Some(0.0));
            if !dropped {
                let (known, _) = self.0.get_key_value(name.as_str()).ok_or_else(|| unknown_slot(name))?;
                slots.insert(known.clone(), self.parse_amount(name, value, rules)?);
            }
        }
        Ok(slots)
    }

    /// Reads the `total_resource_slots` of a policy. Unknown slots are dropped; known slots that are missing
    /// or null get what `default` says.
    ///
    /// # Errors
    /// `Invalid` when the amount of a known slot is not acceptable as a limit.
    pub fn parse_policy(
        &self,
        total: &Map<String, Value>,
        default: DefaultForUnspecified,
    ) -> Result<ResourceSlots> {
        let mut slots = self.filled_with(default.amount());
        for (name, value) in total.iter().filter(|(_, value)| !value.is_null()) {
            if let Some((known, _)) = self.0.get_key_value(name.as_str()) {
                slots.insert(known.clone(), self.parse_amount(name, value, InputRules::LIMIT)?);
            }
        }
        Ok(slots)
    }

    /// A stored policy seen over the known slots: what it does not name gets what `default` says.
    pub fn complete(&self, stored: &ResourceSlots, default: DefaultForUnspecified) -> ResourceSlots {
        let mut slots = self.filled_with(default.amount());
        for (name, amount) in stored {
            if slots.names(name.as_str()) {
                slots.insert(name.clone(), *amount);
            }
        }
        slots
    }

    /// Every known slot with the same amount.
    pub fn filled_with(&self, amount: Amount) -> ResourceSlots {
        self.0.keys().map(|name| (name.clone(), amount)).collect()
    }

    /// An amount for people: bytes with a binary suffix, others as they are.
    pub fn humanize(&self, name: &str, amount: Amount, form: TextForm) -> String {
        match (self.type_of(name), amount) {
            (SlotType::Bytes, Amount::Finite(bytes)) => units::format_bytes(bytes, SizeUnit::fitting(bytes)),
            _ => amount.to_text(form),
        }
    }
}

impl<N: Into<SlotName>> FromIterator<(N, SlotType)> for SlotTypes {
    fn from_iter<I: IntoIterator<Item = (N, SlotType)>>(types: I) -> Self {
        Self(types.into_iter().map(|(name, slot_type)| (name.into(), slot_type)).collect())
    }
}

fn unknown_slot(name: &str) -> Error {
    let message = if name == "shmem" {
        "shmem is not a slot: give it in resource_opts"
    } else {
        "unknown resource slot"
    };
    Error::of(code::INVALID_SLOTS, message).with("slot", name)
}
