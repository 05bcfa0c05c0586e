//! Sizes in bytes.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result, code};
use crate::slots::Amount;
use crate::slots::amount::{is_infinity, out_of_range};

/// A binary multiple of a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SizeUnit {
    /// 1 byte.
    Byte,
    /// 2^10 bytes.
    Kibi,
    /// 2^20 bytes.
    Mebi,
    /// 2^30 bytes.
    Gibi,
    /// 2^40 bytes.
    Tebi,
    /// 2^50 bytes.
    Pebi,
    /// 2^60 bytes.
    Exbi,
    /// 2^70 bytes.
    Zebi,
    /// 2^80 bytes.
    Yobi,
}

impl SizeUnit {
    /// Every unit, the smallest first.
    pub const ALL: [Self; 9] = [
        Self::Byte,
        Self::Kibi,
        Self::Mebi,
        Self::Gibi,
        Self::Tebi,
        Self::Pebi,
        Self::Exbi,
        Self::Zebi,
        Self::Yobi,
    ];

    /// The greatest unit of which there is at least one in `bytes`.
    pub fn fitting(bytes: Decimal) -> Self {
        let is_reached = |unit: &Self| bytes.abs() >= unit.bytes();
        Self::ALL.into_iter().rev().find(is_reached).unwrap_or(Self::Byte)
    }

    /// The short suffix: nothing, `k`, `m`, `g`, …
    pub fn suffix(self) -> &'static str {
        ["", "k", "m", "g", "t", "p", "e", "z", "y"][self as usize]
    }

    /// The long suffix: `KiB`, `MiB`, `GiB`, …
    pub fn symbol(self) -> &'static str {
        ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"][self as usize]
    }

    /// How many bytes the unit has.
    pub fn bytes(self) -> Decimal {
        Decimal::from(1_u128 << self.exponent())
    }

    fn exponent(self) -> u32 {
        10 * self as u32
    }

    /// From what follows the number, in any case.
    fn from_suffix(text: &str) -> Option<Self> {
        if ["", "byte", "bytes"].iter().any(|plain| text.eq_ignore_ascii_case(plain)) {
            return Some(Self::Byte);
        }
        let (scale, rest) = text.split_at_checked(1)?;
        let endings = ["", "b", "ib", "byte", "bytes", "ibyte", "ibytes"];
        let unit = Self::ALL.into_iter().skip(1).find(|unit| scale.eq_ignore_ascii_case(unit.suffix()));
        unit.filter(|_| endings.iter().any(|ending| rest.eq_ignore_ascii_case(ending)))
    }
}

/// Reads a number of bytes: an integer, or a number with a binary suffix in any case (`4g`, `512MiB`, `3 bytes`);
/// underscores are ignored, a fraction needs a suffix and is cut to whole bytes; `inf`, `infinite` and
/// `infinity` are without limit. A negative number is read as such: whether it is allowed is the caller's rule.
///
/// # Errors
/// `Invalid` when the text is not a size or too large to be represented.
pub fn parse_bytes(text: &str) -> Result<Amount> {
    let invalid =
        || Error::of(code::INVALID_SLOTS, "not a size in bytes").with("value", format_args!("{text:?}"));
    let trimmed = text.trim();
    if is_infinity(trimmed) {
        return Ok(Amount::Infinity);
    }
    let end =
        trimmed.find(|c: char| !matches!(c, '0'..='9' | '.' | '_' | '+' | '-')).unwrap_or(trimmed.len());
    let (number, suffix) = trimmed.split_at(end);
    let unit = SizeUnit::from_suffix(suffix.trim_start()).ok_or_else(invalid)?;
    if unit == SizeUnit::Byte && number.contains('.') {
        return Err(invalid());
    }
    let number: Amount = number.replace('_', "").parse().map_err(|error: Error| {
        // Too many digits is another problem than no digits.
        if error.message() == "not a number" { invalid() } else { out_of_range(text) }
    })?;
    let bytes = number.finite().and_then(|number| number.checked_mul(unit.bytes()));
    bytes.map(|bytes| Amount::Finite(bytes.trunc().normalize())).ok_or_else(|| out_of_range(text))
}

/// A number of bytes in a unit, rounded half to even to two decimal places: `1.5g`.
pub fn format_bytes(bytes: Decimal, unit: SizeUnit) -> String {
    format!("{}{}", in_unit(bytes, unit), unit.suffix())
}

/// A number of bytes in the fitting unit, in full: `1.5 GiB`, `1 byte`.
pub fn format_bytes_long(bytes: Decimal) -> String {
    let unit = SizeUnit::fitting(bytes);
    let symbol = if bytes == Decimal::ONE { "byte" } else { unit.symbol() };
    format!("{} {symbol}", in_unit(bytes, unit))
}

/// A number of bytes in the greatest unit that says it exactly with at most two decimal places: `1.5 GiB`, `24096 MiB`,
/// `1025 bytes`.
pub fn format_bytes_exact(bytes: Decimal) -> String {
    let is_exact = |unit: &SizeUnit| in_unit(bytes, *unit) * unit.bytes() == bytes;
    let reached = SizeUnit::ALL.into_iter().rev().skip_while(|unit| *unit > SizeUnit::fitting(bytes));
    let unit = reached.into_iter().find(is_exact).unwrap_or(SizeUnit::Byte);
    let symbol = if bytes == Decimal::ONE { "byte" } else { unit.symbol() };
    format!("{} {symbol}", in_unit(bytes, unit))
}

fn in_unit(bytes: Decimal, unit: SizeUnit) -> Decimal {
    (bytes / unit.bytes()).round_dp(2).normalize()
}

/// A non-negative size in bytes, or no limit. Its text has the greatest suffix that is exact: `4g`, `1536`, `inf`.
///
/// In JSON it is a number of bytes, or the text `Infinity`; on input every text of [`parse_bytes`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BinarySize {
    /// This many bytes.
    Bytes(u64),
    /// Without limit.
    Infinite,
}

impl BinarySize {
    /// From mebibytes.
    pub const fn mib(mebibytes: u32) -> Self {
        Self::Bytes((mebibytes as u64) << 20)
    }

    /// From gibibytes.
    pub const fn gib(gibibytes: u32) -> Self {
        Self::Bytes((gibibytes as u64) << 30)
    }

    /// The number of bytes, unless there is no limit.
    pub const fn bytes(self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Infinite => None,
        }
    }

    /// The number of bytes, where no limit is the greatest number.
    pub const fn saturated(self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Infinite => u64::MAX,
        }
    }

    /// Rounded, in the fitting unit: `1.15g`.
    pub fn to_short(self) -> String {
        self.bytes().map_or_else(
            || "inf".to_owned(),
            |bytes| format_bytes(bytes.into(), SizeUnit::fitting(bytes.into())),
        )
    }

    /// Rounded, in the fitting unit, in full: `1.15 GiB`.
    pub fn to_long(self) -> String {
        self.bytes().map_or_else(|| "infinite".to_owned(), |bytes| format_bytes_long(bytes.into()))
    }
}

impl fmt::Display for BinarySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Bytes(bytes) = *self else { return f.pad("inf") };
        let is_exact = |unit: &SizeUnit| {
            unit.exponent() < u64::BITS && bytes != 0 && bytes.trailing_zeros() >= unit.exponent()
        };
        let unit = SizeUnit::ALL.into_iter().rev().find(is_exact).unwrap_or(SizeUnit::Byte);
        write!(f, "{}{}", bytes >> unit.exponent(), unit.suffix())
    }
}

impl FromStr for BinarySize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid =
            |message| Error::new(ErrorKind::Invalid, message).with("value", format_args!("{text:?}"));
        match parse_bytes(text)? {
            Amount::Infinity => Ok(Self::Infinite),
            amount @ Amount::Finite(_) if amount.is_negative() => Err(invalid("a size must not be negative")),
            amount @ Amount::Finite(_) => {
                amount.to_u64().map(Self::Bytes).ok_or_else(|| invalid("the size is too large"))
            }
        }
    }
}

impl From<u64> for BinarySize {
    fn from(bytes: u64) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<BinarySize> for Amount {
    fn from(size: BinarySize) -> Self {
        size.bytes().map_or(Self::Infinity, Self::from)
    }
}

impl Serialize for BinarySize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => serializer.serialize_u64(*bytes),
            Self::Infinite => serializer.serialize_str("Infinity"),
        }
    }
}

impl<'de> Deserialize<'de> for BinarySize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = BinarySize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes, or a size such as \"4g\"")
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<BinarySize, E> {
        Ok(BinarySize::Bytes(bytes))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<BinarySize, E> {
        u64::try_from(bytes).map(BinarySize::Bytes).map_err(|_| E::custom("a size must not be negative"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<BinarySize, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn vectors(section: &str) -> Vec<Value> {
        let all: Value =
            serde_json::from_str(include_str!("../../testdata/resource-slot-vectors.json")).unwrap();
        ["23.09.10", "26.8"].iter().flat_map(|v| all[v][section].as_array().unwrap().clone()).collect()
    }

    #[test]
    fn reads_every_recorded_size() {
        let cases = vectors("size_text_to_bytes");
        assert_eq!(cases.len(), 78);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let read = parse_bytes(text).ok().map(|amount| amount.to_string());
            assert_eq!(read.as_deref(), case["ok"].as_str(), "{text:?}");
        }
    }

    #[test]
    fn writes_every_recorded_size() {
        for case in vectors("bytes_to_text") {
            let bytes = Decimal::from(case["bytes"].as_u64().unwrap());
            assert_eq!(format_bytes(bytes, SizeUnit::fitting(bytes)), case["auto_short"], "{case}");
            assert_eq!(format_bytes(bytes, SizeUnit::Kibi), case["in_kibi"], "{case}");
            assert_eq!(format_bytes(bytes, SizeUnit::Mebi), case["in_mebi"], "{case}");
            assert_eq!(format_bytes(bytes, SizeUnit::Gibi), case["in_gibi"], "{case}");
            assert_eq!(format_bytes_long(bytes), case["long"], "{case}");
        }
    }

    #[test]
    fn size_text_is_exact_and_read_back() {
        for (bytes, text) in [(0, "0"), (1025, "1025"), (1536, "1536"), (4 << 30, "4g"), (3 << 60, "3e")] {
            let size = BinarySize::Bytes(bytes);
            assert_eq!(size.to_string(), text);
            assert_eq!(text.parse::<BinarySize>().unwrap(), size);
        }
        assert_eq!("inf".parse::<BinarySize>().unwrap().to_string(), "inf");
        assert_eq!(BinarySize::Bytes(1_234_567_890).to_short(), "1.15g");
        assert_eq!(BinarySize::gib(3).to_long(), "3 GiB");
    }

    #[test]
    fn exact_words_hide_nothing() {
        for (bytes, words) in [
            (0_i64, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1536, "1.5 KiB"),
            (128 << 20, "128 MiB"),
            ((128 << 20) - 1, "134217727 bytes"),
            (24_096 << 20, "24096 MiB"),
            (3 << 29, "1.5 GiB"),
        ] {
            assert_eq!(format_bytes_exact(bytes.into()), words);
        }
        assert_eq!(format_bytes_exact((-1_i64 << 30).into()), "-1 GiB");
    }

    #[test]
    fn refuses_sizes_that_do_not_fit() {
        for text in ["-1", "-1g", "16e", "1y", "99999999999999999999999999999999999", "9999999y"] {
            assert!(text.parse::<BinarySize>().is_err(), "{text}");
        }
        assert_eq!(
            parse_bytes("99999999999999999999999999999y").unwrap_err().message(),
            "number out of range"
        );
    }

    #[test]
    fn size_in_json() {
        let read = |text| serde_json::from_str::<BinarySize>(text).ok();
        assert_eq!(read("1024"), Some(BinarySize::Bytes(1024)));
        assert_eq!(read("\"1k\""), Some(BinarySize::Bytes(1024)));
        assert_eq!(read("\"Infinity\""), Some(BinarySize::Infinite));
        assert_eq!(read("-1"), None);
        assert_eq!(read("1.5"), None);
        assert_eq!(
            serde_json::to_string(&[BinarySize::mib(1), BinarySize::Infinite]).unwrap(),
            "[1048576,\"Infinity\"]"
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = parse_bytes(&text);
        }

        #[test]
        fn numeric_text_never_panics(text in "[-+]?[0-9_.]{0,40} ?[kmgtpezy]?i?b?") {
            let _ = parse_bytes(&text);
        }

        #[test]
        fn exact_text_round_trips(bytes in any::<u64>()) {
            prop_assert_eq!(BinarySize::Bytes(bytes).to_string().parse::<BinarySize>().unwrap(), BinarySize::Bytes(bytes));
        }
    }
}
