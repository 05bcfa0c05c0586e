//! Where an event is in the stream.

use std::fmt;

use bai_core::error::{Error, Result, code};
use bai_core::port::events::Position;

/// Place of an event: the server's number of it, and ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Milliseconds on the server's clock, and a count within them.
    pub(super) id: (u64, u64),
    /// One more than that of the event before.
    pub(super) number: u64,
}

impl Place {
    /// From what the server says.
    pub(super) fn new(id: &str, number: u64) -> Result<Self> {
        let id = parse_id(id)
            .ok_or_else(|| Error::of(code::COORD_FAILED, "an event cannot be read").with("id", id))?;
        Ok(Self { id, number })
    }

    /// From a position that [`Self::position`] has made; `None` for any other.
    pub(super) fn parse(position: &Position) -> Option<Self> {
        let (id, number) = position.0.split_once('/')?;
        Some(Self { id: parse_id(id)?, number: number.parse().ok()? })
    }

    pub(super) fn position(self) -> Position {
        Position(format!("{self}/{}", self.number))
    }

    /// Whether both numbers are at most those of the other place.
    pub(super) fn is_up_to(self, other: Self) -> bool {
        self.id <= other.id && self.number <= other.number
    }
}

/// The server's number, as it takes it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.id.0, self.id.1)
    }
}

fn parse_id(id: &str) -> Option<(u64, u64)> {
    let (milliseconds, count) = id.split_once('-')?;
    Some((milliseconds.parse().ok()?, count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_back() {
        let place = Place::new("1732531-7", 1_732_531_000_001).unwrap();
        assert_eq!(place.to_string(), "1732531-7");
        assert_eq!(Place::parse(&place.position()), Some(place));
        for foreign in ["", "1-1", "1/1", "1-1/", "1-1/x", "-1-1/1", "a-1/1", "1-18446744073709551616/1"] {
            assert_eq!(Place::parse(&Position(foreign.to_owned())), None, "{foreign}");
        }
    }

    #[test]
    fn a_place_is_compared_by_both_numbers() {
        let place = |id, number| Place { id, number };
        assert!(place((1, 9), 5).is_up_to(place((2, 0), 5)));
        assert!(!place((2, 1), 5).is_up_to(place((2, 0), 9)));
        assert!(!place((1, 0), 6).is_up_to(place((2, 0), 5)));
    }
}
