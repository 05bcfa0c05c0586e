//! The recorded behaviour of 26.8, our own rules on top, and what must hold of every request.

mod property;
mod recorded;
mod rules;
