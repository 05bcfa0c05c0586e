//! Reconcilers: each compares what should be with what is, and acts. All are idempotent and may run at any time.
//!
//! | reconciler | compares | acts |
//! |---|---|---|
//! | `schedule` | queue of a resource group with its agents' room | commits placements and reasons |
//! | `queue` | kernels of one agent with its last report | creates, starts, ends, collects, forgets kernels there |
//! | `follow` | a report with the records | moves kernels and sessions on |
//! | `sweep` | ages of states and reports with the deadlines | requeues, cancels, declares dead |
//! | `idle` | use of sessions with the idle checkers | ends those that nobody uses |
//! | `publish` | events not yet published | publishes them |
//! | `resync` | memory with a store that others write to | reloads |

pub(crate) mod callback;
pub(crate) mod command;
pub(crate) mod deadlines;
pub(crate) mod effect;
pub(crate) mod follow;
pub(crate) mod idle;
pub(crate) mod leader;
pub(crate) mod preempt;
pub(crate) mod publish;
pub(crate) mod queue;
pub(crate) mod resync;
pub(crate) mod schedule;
pub(crate) mod sweep;
