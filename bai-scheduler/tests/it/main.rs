//! What the scheduler promises.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod backfill;
mod basics;
mod fairness;
mod gangs;
mod incremental;
mod invariants;
mod limits;
mod preemption;
mod reasons;
mod selection;
mod world;
