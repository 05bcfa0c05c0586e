//! Names and types of slots.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Amount;
use crate::error::{Error, Result, code};
use crate::units;

/// The name of a slot, such as `cpu` or `cuda.shares`. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName(Arc<str>);

impl SlotName {
    /// Wraps a name as it is.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The device family: the part before the first dot (`cuda` of `cuda.shares`), which is also the key of
    /// the compute plugin that serves the slot.
    pub fn family(&self) -> &str {
        self.0.split_once('.').map_or(&*self.0, |(family, _)| family)
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Borrow<str> for SlotName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SlotName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for SlotName {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl Serialize for SlotName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SlotName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// How the amounts of a slot are written and divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotType {
    /// A number with up to three decimal places: cores, devices, device shares.
    Count,
    /// A whole number of bytes, which may be written with a binary suffix.
    Bytes,
    /// One particular device group: none or all of it (0 or 1).
    Unique,
    /// The whole device set of a node (0 or 1).
    Unified,
}

impl SlotType {
    /// Decimal places that are kept of a counted amount.
    pub const COUNT_DECIMALS: u32 = 3;

    /// The type of a slot nobody has described: bytes when `mem` is part of its name, otherwise a count.
    pub fn guess(name: &str) -> Self {
        if name.contains("mem") { Self::Bytes } else { Self::Count }
    }

    /// Text of the type, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Unique => "unique",
            Self::Unified => "unified",
        }
    }

    /// An amount in the words of a message, exactly: `2`, `128 MiB`, `Infinity`.
    pub fn describe(self, amount: Amount) -> String {
        match (self, amount) {
            (Self::Bytes, Amount::Finite(bytes)) => units::format_bytes_exact(bytes),
            _ => amount.normalized().to_string(),
        }
    }

    /// Reads an amount of this type. Bytes take binary suffixes; other amounts are rounded half to even to
    /// [`SlotType::COUNT_DECIMALS`] places and lose their trailing zeros.
    ///
    /// # Errors
    /// `Invalid` when the text is not an amount, or not one that can be represented.
    pub fn parse(self, text: &str) -> Result<Amount> {
        match self {
            Self::Bytes => units::parse_bytes(text),
            Self::Count | Self::Unique | Self::Unified => Ok(text.parse::<Amount>()?.map_finite(quantise)),
        }
    }
}

impl FromStr for SlotType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "count" => Ok(Self::Count),
            "bytes" => Ok(Self::Bytes),
            "unique" => Ok(Self::Unique),
            "unified" => Ok(Self::Unified),
            _ => Err(Error::of(code::INVALID_SLOTS, "unknown slot type").with("type", text)),
        }
    }
}

fn quantise(number: Decimal) -> Decimal {
    number.round_dp(SlotType::COUNT_DECIMALS).normalize()
}
