//! The framed protocol between an agent and a kernel runner.
//!
//! ```text
//!  agent                                   runner (listens on a unix socket, mode 0600)
//!    │ Hello {version, token, resume}  ───────▶ │   wrong token: closed without a word
//!    │ ◀─────────────────────────────  Welcome  │
//!    │ Request {id, command}           ───────▶ │   answered by one Reply with the same id
//!    │ ◀────────  Event / Output, each numbered │   kept until acknowledged, replayed on reconnect
//!    │ Ack(seq)                        ───────▶ │   everything up to `seq` may be forgotten
//! ```
//!
//! A frame is a little-endian `u32` length of what follows, one byte of [kind](AgentFrame), and a body. Control
//! frames carry JSON; output frames carry the raw bytes of the program untouched, so decoding UTF-8 is the
//! agent's work. [`AgentFrame`] is what an agent sends, [`RunnerFrame`] what a runner sends.
//!
//! Numbered frames make losing the connection harmless: the runner keeps each one until it is acknowledged, and a
//! new connection first receives all that were not. Commands are safe to send again: `execute` is recognised by
//! its run id, `input`, `interrupt` and `shutdown` by their request id.
//!
//! ```
//! use bai_kernel_lib::protocol::{AgentFrame, Command, Request, RunnerFrame};
//!
//! let mut wire = Vec::new();
//! AgentFrame::Request(Request { id: 7, command: Command::Status }).encode(&mut wire)?;
//! let body = &wire[4..];
//! assert_eq!(AgentFrame::decode(body)?, AgentFrame::Request(Request { id: 7, command: Command::Status }));
//! assert!(RunnerFrame::decode(body).is_err());
//! # Ok::<(), std::io::Error>(())
//! ```

mod frame;
mod message;

pub use frame::{AgentFrame, LENGTH_BYTES, MAX_FRAME, RunnerFrame, output_frame, read_frame, set_seq};
pub use message::{
    BatchSteps, Command, Completion, ErrorCode, Event, Hello, InterpreterState, MAX_RUN_ID, Reply, ReplyBody,
    Request, Status, Stream, Welcome, Work, media_parts,
};

/// Version of the protocol. A runner refuses another major version by closing the connection.
pub const VERSION: u32 = 1;
