//! Statistics (spec agent.md, section 12).

mod sample;

pub use sample::Sample;
