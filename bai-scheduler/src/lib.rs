//! The scheduler: who gets which agent, in what order, and why not.
//!
//! ```text
//!   deltas ──► Group ── pass(now) ──► Plan
//!              agents, sessions,      placements, reservations,
//!              owners, options        preemptions, cancellations, reasons
//! ```
//!
//! A [`Group`] holds one resource group. It is told what happens by [`Delta`]s and asked for a [`Plan`] by [`Group::pass`]. It does
//! no I/O, knows no clock, has no global state and never looks at the order of a hash: the same facts give the same plan on
//! every machine, however the group came to know them. [`Group::explain`] tells why a session waits.
//!
//! A pass looks only at what may have changed since the last one:
//!
//! - sessions that are alike (same priority, owner and request) wait in one *lane*; when the first cannot start, none can;
//! - a lane over a limit is parked until its owner uses less or may use more;
//! - a request that found no room is tried again only when an agent on which it would fit got more;
//! - the agents stand in orders of preference that are kept up to date, and are searched block by block.
//!
//! How it decides: [`sequence`], [`validate`], [`select`], and `docs/scheduling.md`.
//!
//! ```
//! use bai_core::slots::{ResourceSlots, SlotTypes};
//! use bai_scheduler::testing::{agent, at, session};
//! use bai_scheduler::{Delta, Group, Options};
//!
//! let mut group = Group::new(Options::default(), SlotTypes::new());
//! group.apply(Delta::Agent(Box::new(agent("i-one", &[("cpu", 4)]))))?;
//! for number in 1..=2 {
//!     group.apply(Delta::Enqueued(Box::new(session(number, &[&[("cpu", 3)]]))))?;
//! }
//! let plan = group.pass(at(10));
//! assert_eq!(plan.placements.len(), 1);
//! assert_eq!(plan.unplaced[0].explanation.sentence(), "needs cpu 3; best agent has 1 free of 4");
//! # Ok::<(), bai_core::Error>(())
//! ```

pub mod decay;
pub mod device;
pub mod explain;
pub mod select;
pub mod sequence;
pub mod slots;
pub mod testing;
pub mod validate;

mod accounts;
mod fleet;
mod group;
mod model;
mod options;
mod plan;
mod queue;
mod request;
mod room;

pub use explain::{Explanation, Verdict};
pub use group::Group;
pub use model::{
    Agent, Claim, Delta, Dependency, DependencyState, Designation, Direction, Holder, Kernel, Limits,
    Outcome, Owner, Running, Session, SessionGroup, SessionGroupId, UsageSlice,
};
pub use options::{Backfill, Options, Preemption, VictimOrder, VictimScope};
pub use plan::{Cancellation, GivenUp, Placement, Plan, Preempted, Reservation, Unplaced};
pub use select::{AgentView, Concentrated, Dispersed, Legacy, Profile, RoundRobin, SelectionKey, Selector};
pub use sequence::{Drf, FairShare, Fifo, Level, Lifo, Sequencer, Standing, Waiting};
pub use slots::{SlotOrder, SlotTable};
pub use validate::{Candidate, Failure, Validator};

/// The examples of the guide are compiled and run with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../../docs/scheduling.md")]
mod guide {}
