//! The facade from outside.
#![allow(missing_docs)]

mod embedded;
