//! What a [`Group`](crate::Group) is told: agents, sessions, owners and their limits, and how all of them change.
//!
//! These are plain values in the vocabulary of `bai-core`; the group turns them into its own compact form.

mod agent;
mod delta;
mod owner;
mod session;

pub use agent::Agent;
pub use delta::{Delta, Outcome};
pub use owner::{Holder, Limits, Owner, UsageSlice};
pub use session::{
    Claim, Dependency, DependencyState, Designation, Direction, Kernel, Running, Session, SessionGroup,
    SessionGroupId,
};
