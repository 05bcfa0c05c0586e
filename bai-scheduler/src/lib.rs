//! The scheduler: a pure function from a [`Snapshot`] of one resource group to a [`Plan`].
//!
//! ```text
//!   Snapshot ── Sequencer ──► validate ──► Selector ──► Plan
//!   agents, pending,          quotas,      which        placements,
//!   quotas, now               dependencies agent        reasons
//! ```
//!
//! It does no I/O, knows no clock and is deterministic: the same snapshot gives the same plan. Everything that is not
//! placed gets a reason in words. A session that cannot be placed is passed over; it never holds up the others.
//!
//! ```
//! use bai_core::slots::ResourceSlots;
//! use bai_scheduler::{AgentState, Rules, Snapshot, plan};
//!
//! let mut snapshot = Snapshot::at(bai_core::Timestamp::default());
//! snapshot.agents.push(AgentState {
//!     id: "i-one".into(),
//!     architecture: "x86_64".into(),
//!     capacity: ResourceSlots::from_iter([("cpu", 2_u64)]),
//!     held: ResourceSlots::new(),
//!     images: None,
//! });
//! assert!(plan(&snapshot, &Rules::default()).placements.is_empty());
//! ```

pub mod device;
pub mod quota;
pub mod select;
pub mod sequence;
pub mod snapshot;

mod place;
mod plan;
mod validate;

pub use plan::{Plan, Rules, plan};
pub use quota::{Concurrency, Holder, Limit, Quota, Quotas};
pub use select::{Candidate, Concentrated, Dispersed, Selector, SlotOrder};
pub use sequence::{Fifo, Lifo, Sequencer};
pub use snapshot::{AgentState, Dependency, DependencyState, KernelRequest, Pending, Snapshot};
pub use validate::{Failure, Reasons, Refusal};
