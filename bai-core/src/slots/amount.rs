//! Exact amounts.

use std::cmp::Ordering;
use std::fmt;
use std::iter::Sum;
use std::str::FromStr;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result, code};

/// How an amount is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TextForm {
    /// As stored, like 23.09.10. This is the form in our replies.
    #[default]
    Exact,
    /// Rounded half to even to two decimal places, without trailing zeros, like 26.8.
    Rounded,
}

/// An amount of a resource: an exact decimal of up to 28 digits, or infinity. Never not-a-number.
///
/// The order is total and infinity is its greatest element. Equality is by value: `1.0` equals `1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Amount {
    /// A finite amount; negative ones appear as differences only.
    Finite(Decimal),
    /// Without limit.
    Infinity,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self::Finite(Decimal::ZERO);
    /// One unit.
    pub const ONE: Self = Self::Finite(Decimal::ONE);

    /// Whether this is zero.
    pub fn is_zero(self) -> bool {
        matches!(self, Self::Finite(number) if number.is_zero())
    }

    /// Whether this is below zero.
    pub fn is_negative(self) -> bool {
        self < Self::ZERO
    }

    /// Whether this is without limit.
    pub fn is_infinite(self) -> bool {
        self == Self::Infinity
    }

    /// Whether this is finite and has no fraction.
    pub fn is_integer(self) -> bool {
        matches!(self, Self::Finite(number) if number.fract().is_zero())
    }

    /// The number, unless it is infinity.
    pub fn finite(self) -> Option<Decimal> {
        match self {
            Self::Finite(number) => Some(number),
            Self::Infinity => None,
        }
    }

    /// The whole part as an unsigned number, if it is one and fits.
    pub fn to_u64(self) -> Option<u64> {
        self.finite()?.to_u64()
    }

    /// The nearest floating point number, for statistics and scores only.
    pub fn to_f64(self) -> f64 {
        self.finite().map_or(f64::INFINITY, |number| number.to_f64().unwrap_or(f64::INFINITY))
    }

    /// The sum, or `None` when it cannot be represented.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Finite(a), Self::Finite(b)) => a.checked_add(b).map(Self::Finite),
            _ => Some(Self::Infinity),
        }
    }

    /// The difference, or `None` when it has no value (infinity taken away) or cannot be represented.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Finite(a), Self::Finite(b)) => a.checked_sub(b).map(Self::Finite),
            (Self::Infinity, Self::Finite(_)) => Some(Self::Infinity),
            (_, Self::Infinity) => None,
        }
    }

    /// The product with a whole number, or `None` when it cannot be represented. Zero times infinity is zero.
    pub fn checked_mul(self, times: u64) -> Option<Self> {
        match self {
            Self::Finite(number) => number.checked_mul(Decimal::from(times)).map(Self::Finite),
            Self::Infinity if times == 0 => Some(Self::ZERO),
            Self::Infinity => Some(Self::Infinity),
        }
    }

    /// The sum, at most the greatest (or, adding negatives, the least) finite amount.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        match (self, other) {
            (Self::Finite(a), Self::Finite(b)) => Self::Finite(a.saturating_add(b)),
            _ => Self::Infinity,
        }
    }

    /// What is left after taking `other` away: never below zero, infinity less anything finite is infinity.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        self.checked_sub(other).map_or(Self::ZERO, |left| left.max(Self::ZERO))
    }

    /// The text in the given form: a plain decimal without exponent, or `Infinity`.
    pub fn to_text(self, form: TextForm) -> String {
        match form {
            TextForm::Exact => self.to_string(),
            TextForm::Rounded => self.map_finite(|number| number.round_dp(2).normalize()).to_string(),
        }
    }

    /// Without trailing zeros in the fraction.
    #[must_use]
    pub fn normalized(self) -> Self {
        self.map_finite(|number| number.normalize())
    }

    pub(super) fn map_finite(self, f: impl FnOnce(Decimal) -> Decimal) -> Self {
        match self {
            Self::Finite(number) => Self::Finite(f(number)),
            Self::Infinity => Self::Infinity,
        }
    }

    /// From a float, by its shortest decimal text.
    fn from_f64<E: de::Error>(number: f64) -> Result<Self, E> {
        if number == f64::INFINITY {
            return Ok(Self::Infinity);
        }
        format!("{number:e}").parse().map_err(E::custom)
    }
}

impl Default for Amount {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Finite(a), Self::Finite(b)) => a.cmp(b),
            (Self::Infinity, Self::Infinity) => Ordering::Equal,
            (Self::Infinity, Self::Finite(_)) => Ordering::Greater,
            (Self::Finite(_), Self::Infinity) => Ordering::Less,
        }
    }
}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

macro_rules! from_integer {
    ($($int:ty),*) => {$(
        impl From<$int> for Amount {
            fn from(number: $int) -> Self {
                Self::Finite(Decimal::from(number))
            }
        }
    )*};
}

from_integer!(u16, u32, u64, usize, i32, i64);

impl From<Decimal> for Amount {
    fn from(number: Decimal) -> Self {
        Self::Finite(number)
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Self::saturating_add)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finite(number) => number.fmt(f),
            Self::Infinity => f.pad("Infinity"),
        }
    }
}

impl FromStr for Amount {
    type Err = Error;

    /// Reads a decimal, also with an exponent, or `inf` / `infinite` / `infinity` in any case.
    fn from_str(text: &str) -> Result<Self> {
        let number = text.trim();
        if is_infinity(number) {
            return Ok(Self::Infinity);
        }
        let parsed = if number.contains(['e', 'E']) {
            Decimal::from_scientific(number)
        } else {
            number.parse::<Decimal>()
        };
        parsed.map(Self::Finite).map_err(|_| {
            if is_number(number) {
                return out_of_range(text);
            }
            Error::of(code::INVALID_SLOTS, "not a number").with("value", format_args!("{text:?}"))
        })
    }
}

/// Whether the text has the form of a decimal number, be it too long for us.
fn is_number(text: &str) -> bool {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let unsigned = |part: &'_ str| part.strip_prefix(['+', '-']).unwrap_or(part).to_owned();
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let digits = unsigned(whole) + fraction;
    let exponent = unsigned(exponent);
    !digits.is_empty() && all_digits(&digits) && !exponent.is_empty() && all_digits(&exponent)
}

/// Whether the text names infinity.
pub(crate) fn is_infinity(text: &str) -> bool {
    ["inf", "infinite", "infinity"].iter().any(|name| text.eq_ignore_ascii_case(name))
}

pub(crate) fn out_of_range(text: &str) -> Error {
    Error::of(code::INVALID_SLOTS, "number out of range").with("value", format_args!("{text:?}"))
}

impl Serialize for Amount {
    /// As a string in the exact form.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    /// From a string or a number.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmountVisitor)
    }
}

struct AmountVisitor;

impl Visitor<'_> for AmountVisitor {
    type Value = Amount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a decimal number or its text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Amount, E> {
        Ok(number.into())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Amount, E> {
        Ok(number.into())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Amount, E> {
        Amount::from_f64(number)
    }
}
