//! The execute state machine of a kernel (spec session-lifecycle.md, section 5).
//!
//! ```text
//!            frames of the runner                       execute calls
//!  runner ───────────────────────▶ [Runs: run → output] ─────────────▶ replies
//!         ◀─────────────────────── acknowledgement of what replies have taken
//! ```
//!
//! Only what a client has taken is acknowledged, so the runner keeps the rest for the next agent, and holds back a program
//! that writes faster than its client reads. One whose client has gone is held back for a bounded time only.

mod buffer;
mod decode;
mod runs;

pub(crate) use runs::{BATCH_RUN, Runs, RunsLimits, vanished};
