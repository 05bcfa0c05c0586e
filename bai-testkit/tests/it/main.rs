//! The suites on the implementations in memory.

mod memory;
