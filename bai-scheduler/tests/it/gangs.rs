//! gangs
