//! Values in the text forms of Python, which the session info reply is made of (spec rest-manager.md, section 2.5).

use std::fmt::{self, Write};

use bai_core::{ResourceSlots, Timestamp};
use serde_json::Value;

/// `2024-02-29 12:34:56.789012+00:00`; the fraction is left out when it is zero.
pub(super) fn datetime(at: Timestamp) -> String {
    let format = if at.timestamp_subsec_micros() == 0 {
        "%Y-%m-%d %H:%M:%S+00:00"
    } else {
        "%Y-%m-%d %H:%M:%S%.6f+00:00"
    };
    at.format(format).to_string()
}

/// The same, always with a fraction: the official client cuts the text at the dot.
pub(super) fn datetime_with_fraction(at: Timestamp) -> String {
    at.format("%Y-%m-%d %H:%M:%S%.6f+00:00").to_string()
}

/// `2024-02-29T12:34:56.789012+00:00`; the fraction is left out when it is zero.
pub(super) fn iso(at: Timestamp) -> String {
    let format = if at.timestamp_subsec_micros() == 0 {
        "%Y-%m-%dT%H:%M:%S+00:00"
    } else {
        "%Y-%m-%dT%H:%M:%S%.6f+00:00"
    };
    at.format(format).to_string()
}

/// `{'cpu': Decimal('1'), 'mem': Decimal('402653184')}`.
pub(super) fn slots(slots: &ResourceSlots) -> String {
    let entries =
        slots.iter().map(|(name, amount)| format!("'{name}': Decimal('{amount}')")).collect::<Vec<_>>();
    format!("{{{}}}", entries.join(", "))
}

/// A dictionary of anything that can be seen as JSON.
pub(super) fn dict<'a, V: Into<Value>>(entries: impl IntoIterator<Item = (&'a str, V)>) -> String {
    Repr(&Value::Object(entries.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect()))
        .to_string()
}

/// Shows a JSON value as Python's `repr` would.
struct Repr<'a>(&'a Value);

impl fmt::Display for Repr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("None"),
            Value::Bool(true) => f.write_str("True"),
            Value::Bool(false) => f.write_str("False"),
            Value::Number(number) => number.fmt(f),
            Value::String(text) => quote(f, text),
            Value::Array(items) => {
                f.write_char('[')?;
                for (i, item) in items.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { ", " })?;
                    Repr(item).fmt(f)?;
                }
                f.write_char(']')
            }
            Value::Object(entries) => {
                f.write_char('{')?;
                for (i, (key, value)) in entries.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { ", " })?;
                    quote(f, key)?;
                    f.write_str(": ")?;
                    Repr(value).fmt(f)?;
                }
                f.write_char('}')
            }
        }
    }
}

fn quote(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    f.write_char(mark)?;
    for c in text.chars() {
        match c {
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c == mark => write!(f, "\\{c}")?,
            c if c.is_control() => write!(f, "\\x{:02x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char(mark)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_look_like_python() {
        for (value, expected) in [
            (json!({"main1": {"shmem": 67_108_864}}), "{'main1': {'shmem': 67108864}}"),
            (json!(["a'b", "a\"b'", "x\n\u{7}\\"]), r#"["a'b", 'a"b\'', 'x\n\x07\\']"#),
            (json!([null, true, false, 1.5]), "[None, True, False, 1.5]"),
            (json!({}), "{}"),
        ] {
            assert_eq!(Repr(&value).to_string(), expected);
        }
    }

    #[test]
    fn times_look_like_python() {
        let whole = bai_core::clock::from_micros(1_709_210_096_000_000);
        let part = bai_core::clock::from_micros(1_709_210_096_700_000);
        assert_eq!(datetime(whole), "2024-02-29 12:34:56+00:00");
        assert_eq!(datetime(part), "2024-02-29 12:34:56.700000+00:00");
        assert_eq!(datetime_with_fraction(whole), "2024-02-29 12:34:56.000000+00:00");
        assert_eq!(iso(part), "2024-02-29T12:34:56.700000+00:00");
    }
}
