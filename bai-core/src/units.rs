//! Sizes in bytes with binary suffixes, and spans of time, as people write them.
//!
//! Rules: REST specification, section 0. Sizes: `4g`, `512MiB`, `3 bytes`, `inf`. Spans: `30s`, `5m`, `1h`, `1d`,
//! `1w`, `6mo`, `1yr`; a bare number means seconds.

mod size;
mod span;

pub use size::{BinarySize, SizeUnit, format_bytes, format_bytes_exact, format_bytes_long, parse_bytes};
pub use span::TimeSpan;
