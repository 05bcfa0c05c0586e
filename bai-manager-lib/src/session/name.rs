//! Names of sessions.

use bai_core::error::code;
use bai_core::{Error, Result};

/// The path word that stands for "create from a template".
const RESERVED: &str = "from-template";

/// Checks a session name: 4 to 64 ASCII characters of letters, digits, `_`, `.` and `-`, the first and the last of them a
/// letter, digit or `_` (spec rest-manager.md, section 0).
///
/// # Errors
/// `Invalid` ([`code::INVALID_SESSION_NAME`]).
pub(crate) fn check(name: &str) -> Result<()> {
    let invalid = |message: &str| {
        Err(Error::of(code::INVALID_SESSION_NAME, message).with("name", format_args!("{name:?}")))
    };
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = name.as_bytes();
    if !(4..=64).contains(&bytes.len()) {
        return invalid("a session name has 4 to 64 characters");
    }
    if !bytes.iter().all(|byte| is_word(*byte) || matches!(byte, b'.' | b'-')) {
        return invalid("a session name consists of letters, digits, `_`, `.` and `-`");
    }
    if !is_word(bytes[0]) || !is_word(bytes[bytes.len() - 1]) {
        return invalid("a session name starts and ends with a letter, a digit or `_`");
    }
    if name == RESERVED {
        return invalid("the session name is reserved");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn the_rule_of_names() {
        for good in ["abcd", "a.-b", "_a1_", "test-session", &"x".repeat(64)] {
            check(good).unwrap();
        }
        for bad in [
            "",
            "abc",
            "-abc",
            "abc-",
            ".abc",
            "abc.",
            "a b c",
            "abc/d",
            "naïve",
            "from-template",
            &"x".repeat(65),
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
