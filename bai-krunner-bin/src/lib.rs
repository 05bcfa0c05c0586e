//! The runner binary, embedded.
