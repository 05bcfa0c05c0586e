//! What runs inside a kernel, and how the agent talks to it.
//!
//! ```text
//!   agent ──unix socket──▶ runner (PID 1) ──pipes──▶ interpreter, compilers, shell   (user `work`)
//!         ◀─ numbered frames ─┘
//! ```
//!
//! * [`protocol`]: the frames between agent and runner, and their codec. The agent links this part.
//! * [`config`]: the file that tells a runner what it serves.
//! * [`runner`]: the runner itself; `bai-krunner` is a `main` around [`runner::run`].
//! * [`sandbox`]: namespaces and limits on the host for a runner without a container engine.
//!
//! The library depends on no other crate of the workspace, so that the static runner stays small.

pub mod config;
mod drivers;
pub mod protocol;
pub mod runner;
pub mod sandbox;
