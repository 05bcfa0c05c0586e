//! The agent's side of a kernel runner.
//!
//! [`Runner`] is what the rest of the agent speaks to; `runner::unix` speaks the framed protocol of
//! [`bai_kernel_lib::protocol`] over a unix socket and survives lost connections. The simulated back end brings its own.

pub(crate) mod unix;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bai_core::error::{Error, Result, code};
use bai_core::port::agent::KernelRef;
use bai_kernel_lib::protocol::{Command, ErrorCode, Event, ReplyBody, Stream};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// What a runner sends, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A connection is open: frames from here on belong to this start of the runner.
    Connected {
        /// Random name of the start.
        boot: Arc<str>,
    },
    /// Program output.
    Output {
        /// Number of the frame.
        seq: u64,
        /// The run; empty between two runs.
        run_id: String,
        /// What the data is.
        stream: Stream,
        /// The data.
        data: Bytes,
    },
    /// Something happened.
    Event {
        /// Number of the frame.
        seq: u64,
        /// What.
        event: Event,
    },
    /// The connection was lost. It is made again while the runner exists.
    Disconnected,
}

/// A connected runner.
pub trait Runner: fmt::Debug + Send + Sync + 'static {
    /// Queues a command behind those sent before and returns at once. The reply comes when the runner has it; the receiver
    /// fails when the runner is given up.
    fn send(&self, command: Command) -> oneshot::Receiver<ReplyBody>;

    /// Tells the runner that every frame up to `seq` of its start `boot` may be forgotten.
    fn ack(&self, boot: &Arc<str>, seq: u64);
}

/// A runner and what it sends.
pub type Connection = (Arc<dyn Runner>, mpsc::Receiver<Incoming>);

/// Reaches the runners of one kind of back end that has no sockets.
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// Connects to the runner of a started kernel.
    ///
    /// # Errors
    /// `Unavailable` ([`code::RUNNER_GONE`]) when the kernel does not run.
    fn connect(&self, kernel: KernelRef) -> Result<Connection>;
}

/// Opens a connection by socket.
pub(crate) fn connect_unix(path: PathBuf, token: String) -> Connection {
    unix::connect(path, token)
}

/// Waits for the reply to a command.
///
/// # Errors
/// `Timeout` after `limit`, `Unavailable` when the runner has gone, `Invalid` or `QuotaExceeded` when it refuses.
pub(crate) async fn reply(pending: oneshot::Receiver<ReplyBody>, limit: Duration) -> Result<ReplyBody> {
    match tokio::time::timeout(limit, pending).await {
        Err(_) => Err(Error::of(code::KERNEL_TIMEOUT, "the kernel does not answer")),
        Ok(Err(_)) => Err(gone()),
        Ok(Ok(ReplyBody::Error { code, message })) => Err(refusal(code, message)),
        Ok(Ok(body)) => Ok(body),
    }
}

/// The error for a kernel without a living runner.
pub(crate) fn gone() -> Error {
    Error::of(code::RUNNER_GONE, "the kernel has gone")
}

fn refusal(why: ErrorCode, message: String) -> Error {
    match why {
        ErrorCode::Invalid | ErrorCode::NotFound => Error::of(code::BAD_REQUEST, message),
        ErrorCode::QueueFull => Error::of(code::QUOTA_EXCEEDED, message),
        ErrorCode::ShuttingDown => gone(),
    }
}
