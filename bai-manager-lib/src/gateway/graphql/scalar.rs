//! Scalars with the spellings of graphql-manager.md, section 2.

use async_graphql::{InputValueError, InputValueResult, Number, Scalar, ScalarType, Value};
use bai_core::{ResourceSlots, Timestamp};
use serde::Serialize;

use crate::gateway::python;

/// ISO-8601 with an offset.
#[derive(Debug, Clone, Copy)]
pub(super) struct DateTime(pub(super) Timestamp);

#[Scalar(name = "DateTime")]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else { return Err(InputValueError::expected_type(value)) };
        let parsed =
            bai_core::signing::parse_date(text).ok_or_else(|| InputValueError::custom("not a date"))?;
        Ok(Self(parsed.to_utc()))
    }

    fn to_value(&self) -> Value {
        Value::String(python::iso(self.0))
    }
}

/// A UUID in hyphenated lower case.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uuid(pub(super) uuid::Uuid);

#[Scalar(name = "UUID")]
impl ScalarType for Uuid {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else { return Err(InputValueError::expected_type(value)) };
        text.parse().map(Self).map_err(|_| InputValueError::custom("not a UUID"))
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

/// A text that holds JSON.
#[derive(Debug, Clone)]
pub(super) struct JsonString(String);

impl JsonString {
    /// The JSON text of a value.
    pub(super) fn of(value: &impl Serialize) -> Option<Self> {
        serde_json::to_string(value).ok().map(Self)
    }

    /// Slots as an object of decimal texts.
    pub(super) fn slots(slots: &ResourceSlots) -> Option<Self> {
        Self::of(slots)
    }

    /// An empty object.
    pub(super) fn empty() -> Self {
        Self("{}".to_owned())
    }
}

#[Scalar(name = "JSONString")]
impl ScalarType for JsonString {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            Value::String(text) if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() => {
                Ok(Self(text))
            }
            Value::String(_) => Err(InputValueError::custom("not a JSON text")),
            other => Err(InputValueError::expected_type(other)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// An integer of up to 53 bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct BigInt(i64);

/// Greatest integer that JavaScript represents exactly.
const MAX_SAFE: i64 = (1 << 53) - 1;

impl BigInt {
    /// The number, at most the greatest one that may be sent.
    pub(super) fn of(value: u64) -> Self {
        Self(i64::try_from(value).unwrap_or(MAX_SAFE).min(MAX_SAFE))
    }

    /// A signed number.
    pub(super) fn signed(value: i64) -> Self {
        Self(value.clamp(-MAX_SAFE, MAX_SAFE))
    }
}

#[Scalar(name = "BigInt")]
impl ScalarType for BigInt {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::Number(number) = &value else { return Err(InputValueError::expected_type(value)) };
        let exact = number.as_i64().filter(|number| (-MAX_SAFE..=MAX_SAFE).contains(number));
        exact.map(Self).ok_or_else(|| InputValueError::custom("not an integer of at most 53 bits"))
    }

    fn to_value(&self) -> Value {
        Value::Number(Number::from(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_strict() {
        assert!(JsonString::parse(Value::from("{\"a\": 1}")).is_ok());
        assert!(JsonString::parse(Value::from("{a}")).is_err());
        assert!(Uuid::parse(Value::from("12c45b55-ce3c-418d-9c58-223bbba307f1")).is_ok());
        assert!(Uuid::parse(Value::from("x")).is_err());
        assert!(BigInt::parse(Value::from(5_368_709_120_i64)).is_ok());
        assert!(BigInt::parse(Value::from(1_i64 << 53)).is_err());
        assert_eq!(BigInt::of(u64::MAX).to_value(), Value::from(MAX_SAFE));
    }
}
