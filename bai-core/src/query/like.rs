//! The pattern language of SQL.

/// One element of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// Any text, also none.
    Any,
    /// Any one character.
    One,
    /// This character.
    Exactly(char),
}

/// Whether `text` has the form of `pattern`: `%` stands for any text, `_` for any one character, and a backslash
/// takes the special meaning from what follows. Time is at most proportional to the product of the lengths.
pub fn like(text: &str, pattern: &str, ignore_case: bool) -> bool {
    if ignore_case {
        matches(&text.to_lowercase(), &pieces(&pattern.to_lowercase()))
    } else {
        matches(text, &pieces(pattern))
    }
}

/// Whether `text` is like `pattern` with `%` on either side.
pub(super) fn contains(text: &str, pattern: &str) -> bool {
    matches(text, &pieces(&format!("%{pattern}%")))
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut chars = pattern.chars();
    let mut pieces = Vec::with_capacity(pattern.len());
    while let Some(c) = chars.next() {
        pieces.push(match c {
            '%' => Piece::Any,
            '_' => Piece::One,
            '\\' => Piece::Exactly(chars.next().unwrap_or('\\')),
            c => Piece::Exactly(c),
        });
    }
    pieces
}

/// Greedy matching that goes back to the latest `%` only: an earlier one can never do better.
fn matches(text: &str, pieces: &[Piece]) -> bool {
    let (mut rest, mut at) = (text.chars(), 0);
    let mut latest = None;
    loop {
        match pieces.get(at) {
            Some(Piece::Any) => {
                latest = Some((rest.clone(), at));
                at += 1;
                continue;
            }
            Some(piece) => {
                let next = rest.next();
                if next.is_some_and(|c| *piece == Piece::One || *piece == Piece::Exactly(c)) {
                    at += 1;
                    continue;
                }
            }
            None if rest.as_str().is_empty() => return true,
            None => {}
        }
        // A dead end: let the latest `%` take one more character.
        let Some((start, any)) = &mut latest else { return false };
        if start.next().is_none() {
            return false;
        }
        (rest, at) = (start.clone(), *any + 1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns() {
        for (text, pattern, expected) in [
            ("", "", true),
            ("", "%", true),
            ("", "_", false),
            ("abc", "abc", true),
            ("abc", "a%", true),
            ("abc", "%c", true),
            ("abc", "%b%", true),
            ("abc", "a_c", true),
            ("abc", "a_", false),
            ("abc", "%_%_%_%", true),
            ("abc", "%_%_%_%_%", false),
            ("aXbXc", "a%X%c", true),
            ("mississippi", "m%iss%ppi", true),
            ("mississippi", "m%iss%ppx", false),
            ("50%", "50\\%", true),
            ("500", "50\\%", false),
            ("a\\", "a\\", true),
            ("세션", "_션", true),
            ("ABC", "abc", false),
        ] {
            assert_eq!(like(text, pattern, false), expected, "{text:?} {pattern:?}");
        }
        assert!(like("ABC", "a%c", true));
        assert!(contains("i-agent", "i-ag") && !contains("agent", "i-ag"));
    }

    #[test]
    fn hostile_patterns_take_no_exponential_time() {
        assert!(!like(&"a".repeat(5_000), &("%a".repeat(500) + "b"), false));
    }

    /// The definition, for short inputs.
    fn by_definition(text: &[char], pieces: &[Piece]) -> bool {
        match pieces.split_first() {
            None => text.is_empty(),
            Some((Piece::Any, rest)) => (0..=text.len()).any(|skip| by_definition(&text[skip..], rest)),
            Some((piece, rest)) => text.split_first().is_some_and(|(c, tail)| {
                (*piece == Piece::One || *piece == Piece::Exactly(*c)) && by_definition(tail, rest)
            }),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(text in "[ab]{0,8}", pattern in "[ab%_]{0,7}") {
            let chars: Vec<char> = text.chars().collect();
            prop_assert_eq!(like(&text, &pattern, false), by_definition(&chars, &pieces(&pattern)));
        }
    }
}
