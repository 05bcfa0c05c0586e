//! The kinds of parameter values (spec rest-manager.md, section 0).

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::{Map, Value};
use uuid::Uuid;

/// A text.
pub(in crate::gateway) fn text(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| "value is not a string".to_owned())
}

/// A text of at least one character.
pub(in crate::gateway) fn non_empty(value: &Value) -> Result<String, String> {
    text(value).and_then(|text| {
        if text.is_empty() { Err("blank value is not allowed".to_owned()) } else { Ok(text) }
    })
}

/// `bool*` of the tables: true and false, or the usual words for them in any case.
pub(in crate::gateway) fn boolean(value: &Value) -> Result<bool, String> {
    let word = match value {
        Value::Bool(value) => return Ok(*value),
        Value::String(text) => text.trim().to_ascii_lowercase(),
        other => other.to_string(),
    };
    match word.as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" => Ok(true),
        "f" | "false" | "n" | "no" | "off" | "0" | "none" => Ok(false),
        _ => Err("value can't be converted to Bool".to_owned()),
    }
}

/// A whole number within bounds, also as text.
pub(in crate::gateway) fn integer(least: i64, most: i64) -> impl Fn(&Value) -> Result<i64, String> {
    move |value| {
        let number = match value {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_i64(),
        };
        match number {
            None => Err("value can't be converted to int".to_owned()),
            Some(number) if number < least => {
                Err(format!("value should be greater than or equal to {least}"))
            }
            Some(number) if number > most => Err(format!("value should be less than or equal to {most}")),
            Some(number) => Ok(number),
        }
    }
}

/// A whole number of an unsigned type.
pub(in crate::gateway) fn unsigned<T: TryFrom<i64>>(
    least: i64,
    most: i64,
) -> impl Fn(&Value) -> Result<T, String> {
    let integer = integer(least, most);
    move |value| integer(value)?.try_into().map_err(|_| "value is out of range".to_owned())
}

/// A UUID, with or without hyphens.
pub(in crate::gateway) fn uuid(value: &Value) -> Result<Uuid, String> {
    text(value)?.parse().map_err(|_| "value is not a valid UUID".to_owned())
}

/// One of the names of an enumeration.
pub(in crate::gateway) fn one_of<T: FromStr>(value: &Value) -> Result<T, String> {
    text(value)?.parse().map_err(|_| "value doesn't match any variant".to_owned())
}

/// A list; from a query string a single value.
pub(in crate::gateway) fn list<T>(
    kind: impl Fn(&Value) -> Result<T, String>,
) -> impl Fn(&Value) -> Result<Vec<T>, String> {
    move |value| match value {
        Value::Array(items) => items.iter().map(&kind).collect(),
        Value::String(_) => Ok(vec![kind(value)?]),
        _ => Err("value is not a list".to_owned()),
    }
}

/// A JSON object.
pub(in crate::gateway) fn object(value: &Value) -> Result<Map<String, Value>, String> {
    value.as_object().cloned().ok_or_else(|| "value is not a dict".to_owned())
}

/// An object of texts.
pub(in crate::gateway) fn text_map(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let entries = value.as_object().ok_or_else(|| "value is not a dict".to_owned())?;
    let convert = |(key, value): (&String, &Value)| match value {
        Value::String(text) => Ok((key.clone(), text.clone())),
        _ => Err(format!("the value of {key} is not a string")),
    };
    entries.iter().map(convert).collect()
}

/// A text that holds JSON.
pub(in crate::gateway) fn json_text(value: &Value) -> Result<Value, String> {
    serde_json::from_str(&text(value)?).map_err(|_| "value is not a valid JSON string".to_owned())
}

/// Name of a session: ASCII, 4 to 64 word characters, dots and hyphens, the first and last a word character.
pub(in crate::gateway) fn session_name(value: &Value) -> Result<String, String> {
    let name = text(value)?;
    if is_session_name(&name) {
        Ok(name)
    } else {
        Err("should be 4 to 64 letters, digits, `_`, `.` or `-`, and start and end with none of `.` and `-`"
            .to_owned())
    }
}

fn is_session_name(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = name.as_bytes();
    (4..=64).contains(&bytes.len())
        && bytes.iter().all(|byte| word(*byte) || matches!(byte, b'.' | b'-'))
        && bytes.first().copied().is_some_and(word)
        && bytes.last().copied().is_some_and(word)
}

/// An absolute `http` or `https` URL.
pub(in crate::gateway) fn absolute_url(value: &Value) -> Result<String, String> {
    let url = text(value)?;
    let parsed = url.parse::<axum::http::Uri>().ok();
    let absolute = parsed.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    if absolute { Ok(url) } else { Err("value is not an absolute URL".to_owned()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn booleans_are_coerced() {
        for word in ["t", "TRUE", "y", "Yes", "on", "1"] {
            assert_eq!(boolean(&json!(word)), Ok(true), "{word}");
        }
        for word in ["f", "False", "N", "no", "off", "0", "none"] {
            assert_eq!(boolean(&json!(word)), Ok(false), "{word}");
        }
        assert_eq!(boolean(&json!(1)), Ok(true));
        assert!(boolean(&json!("maybe")).is_err());
        assert!(boolean(&json!([])).is_err());
    }

    #[test]
    fn session_names_follow_the_rule() {
        for good in ["gold1", "a.-b", "____", &"x".repeat(64)] {
            assert!(is_session_name(good), "{good}");
        }
        for bad in ["abc", "bad name!", "-abcd", "abcd.", "세션이름", &"x".repeat(65), "a\nbc"] {
            assert!(!is_session_name(bad), "{bad}");
        }
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(integer(1, 5)(&json!("4")), Ok(4));
        assert_eq!(unsigned::<u16>(1024, 65535)(&json!(8080)), Ok(8080));
        assert!(unsigned::<u16>(1024, 65535)(&json!(80)).unwrap_err().contains("1024"));
        assert!(integer(0, 9)(&json!(1.5)).is_err());
        assert!(integer(0, i64::MAX)(&json!(1e30)).is_err());
    }

    #[test]
    fn urls_are_absolute() {
        assert!(absolute_url(&json!("https://example.com/x?y=1")).is_ok());
        for bad in ["/relative", "ftp://example.com", "http://", "nonsense"] {
            assert!(absolute_url(&json!(bad)).is_err(), "{bad}");
        }
    }
}
