//! Patterns of `like`, in a form that each database reads alike. Neither's own `LIKE` will do: SQLite's ignores case, and
//! they disagree about the backslash.

use bai_core::error::{Error, Result, code};

/// The longest form that SQLite takes.
const MAX_LENGTH: usize = 50_000;

/// A parsed pattern.
#[derive(Debug)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// Any text.
    Any,
    /// Any one character.
    One,
    /// This character.
    Exactly(char),
}

impl Pattern {
    /// `%`, `_` and the backslash have their meanings of [`bai_core::query::like`].
    pub(super) fn parse(pattern: &str) -> Self {
        let mut chars = pattern.chars();
        let mut pieces = Vec::with_capacity(pattern.len());
        while let Some(c) = chars.next() {
            let piece = match c {
                '%' => Piece::Any,
                '_' => Piece::One,
                '\\' => Piece::Exactly(chars.next().unwrap_or('\\')),
                c => Piece::Exactly(c),
            };
            if !(piece == Piece::Any && pieces.last() == Some(&Piece::Any)) {
                pieces.push(piece);
            }
        }
        Self(pieces)
    }

    /// For SQLite's `GLOB`.
    #[cfg(feature = "sqlite")]
    pub(super) fn as_glob(&self, ignore_case: bool) -> Result<String> {
        let mut glob = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Any => glob.push('*'),
                Piece::One => glob.push('?'),
                Piece::Exactly(c) => match (cases(*c, ignore_case).as_slice(), c) {
                    ([_], '*' | '?' | '[') => glob.extend(['[', *c, ']']),
                    ([c], _) => glob.push(*c),
                    (cases, _) => {
                        glob.push('[');
                        glob.extend(cases);
                        glob.push(']');
                    }
                },
            }
        }
        short_enough(glob)
    }

    /// For PostgreSQL's `~`.
    #[cfg(feature = "postgres")]
    pub(super) fn as_regex(&self, ignore_case: bool) -> Result<String> {
        let mut regex = String::from("^");
        for piece in &self.0 {
            match piece {
                Piece::Any => regex.push_str(".*"),
                Piece::One => regex.push('.'),
                Piece::Exactly(c) => match cases(*c, ignore_case).as_slice() {
                    [c] if c.is_ascii_punctuation() => regex.extend(['\\', *c]),
                    [c] => regex.push(*c),
                    cases => {
                        regex.push('[');
                        regex.extend(cases);
                        regex.push(']');
                    }
                },
            }
        }
        regex.push('$');
        short_enough(regex)
    }
}

fn short_enough(pattern: String) -> Result<String> {
    if pattern.len() > MAX_LENGTH {
        return Err(Error::of(code::FILTER_SYNTAX, "the pattern is too long").with("bytes", pattern.len()));
    }
    Ok(pattern)
}

/// The character, with its other cases where they do not matter. They are letters, so that none has a meaning in a pattern.
fn cases(c: char, ignore_case: bool) -> Vec<char> {
    let mut cases = vec![c];
    if ignore_case {
        for other in c.to_lowercase().chain(c.to_uppercase()) {
            let is_case = other.to_lowercase().eq(c.to_lowercase());
            if is_case && !cases.contains(&other) {
                cases.push(other);
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "sqlite")]
    #[test]
    fn globs() {
        for (pattern, ignore_case, expected) in [
            ("a%b_", false, "a*b?"),
            ("%%%", false, "*"),
            (r"\%\_\\", false, r"%_\"),
            ("[x]*?", false, "[[]x][*][?]"),
            ("aé1", true, "[aA][éÉ]1"),
            ("ß", true, "ß"),
        ] {
            assert_eq!(Pattern::parse(pattern).as_glob(ignore_case).unwrap(), expected, "{pattern}");
        }
        assert!(Pattern::parse(&"a".repeat(60_000)).as_glob(false).is_err());
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn regexes() {
        for (pattern, ignore_case, expected) in [
            ("a%b_", false, "^a.*b.$"),
            (r"\%\_\\", false, r"^\%\_\\$"),
            ("^(x)$.", false, r"^\^\(x\)\$\.$"),
            ("aé1", true, "^[aA][éÉ]1$"),
        ] {
            assert_eq!(Pattern::parse(pattern).as_regex(ignore_case).unwrap(), expected, "{pattern}");
        }
    }
}
