//! A sandbox on the host for one kernel, made of namespaces and limits: what the process back end starts.
//!
//! ```text
//!   agent ─spawn─▶ monitor (stays outside, waits, writes exit.json)
//!                     └─clone─▶ PID 1 of the sandbox: builds its root, gives up its powers, becomes the runner
//! ```
//!
//! The agent writes a [`SandboxSpec`] and starts `bai-krunner sandbox SPEC`. Both processes are independent of the
//! agent from then on: its end, even by SIGKILL, does not touch them. Two files in the state directory let any later
//! agent find the sandbox again: [`SandboxRecord`] (`sandbox.json`) while it runs and [`ExitRecord`] (`exit.json`) once
//! it has ended. A sandbox whose record was deleted under it ends by itself: nobody could find it again.
//!
//! What the sandbox shows of the host is a list of what is *allowed* (system programs, the interpreter's own
//! directory), never the whole of it, so nothing has to be hidden one by one. Mount and pid namespaces are required;
//! every other protection that a host refuses becomes a sentence in [`SandboxRecord::gaps`].
//!
//! As root the user's code runs under another user id without capabilities. As a normal user a user namespace with
//! that single user does the same; limits are then per process where no cgroup can be had.

mod device;
mod etc;
mod filter;
mod inside;
mod monitor;
mod power;
mod root;
mod spec;
mod sys;

pub use monitor::run;
pub use power::{give_up_mounting, keep_from_children};
pub use spec::{
    Bind, CONTROL_DIR, CgroupDir, EXIT_FILE, ExitRecord, NamespaceIds, Network, RECORD_FILE, RUNNER_PATH,
    Rlimits, SandboxRecord, SandboxSpec, start_time,
};
