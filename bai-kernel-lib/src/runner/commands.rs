//! What each command of the agent does.

use std::sync::mpsc::{SyncSender, TrySendError};

use super::{
    kernel::Kernel,
    runs::{Interrupted, Run},
    server::Server,
    supervise::lock,
};
use crate::protocol::{Command, Completion, ErrorCode, Event, ReplyBody, Request, Status};

/// How many request ids are remembered, to recognise one that is sent again.
const REMEMBERED: usize = 256;

/// A request for completions on its way to the thread that answers them.
#[derive(Debug)]
pub(super) struct CompletionJob {
    pub(super) connection: u64,
    pub(super) id: u64,
    pub(super) completion: Completion,
}

/// Obeys a command. `None` means that the answer comes later.
pub(super) fn handle(
    server: &Server,
    kernel: &Kernel,
    completions: &SyncSender<CompletionJob>,
    connection: u64,
    request: Request,
) -> Option<ReplyBody> {
    let Request { id, command } = request;
    Some(match command {
        Command::Execute { run_id, work } => match kernel.runs.submit(Run { run_id, work }) {
            Ok(duplicate) => ReplyBody::Accepted { duplicate },
            Err(code) => error(code),
        },
        Command::Status => ReplyBody::Status(status(kernel)),
        Command::Complete(completion) => {
            match completions.try_send(CompletionJob { connection, id, completion }) {
                Ok(()) => return None,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                    ReplyBody::Completions(Vec::new())
                }
            }
        }
        Command::Input { .. } | Command::Interrupt { .. } | Command::Shutdown { .. }
            if is_repeated(server, id) =>
        {
            ReplyBody::Done
        }
        Command::Input { run_id, text } => {
            if kernel.input.answer(run_id.as_deref(), &text) {
                ReplyBody::Done
            } else {
                error(ErrorCode::NotFound)
            }
        }
        Command::Interrupt { run_id } => interrupt(kernel, run_id.as_deref()),
        Command::Shutdown { grace_ms } => {
            if let Some(grace) = grace_ms {
                *lock(&kernel.ending.grace_ms) = grace;
            }
            let _ = kernel.ending.event.write(1);
            ReplyBody::Done
        }
    })
}

fn is_repeated(server: &Server, id: u64) -> bool {
    let mut recent = lock(&server.recent);
    if recent.contains(&id) {
        return true;
    }
    if recent.len() >= REMEMBERED {
        recent.remove(0);
    }
    recent.push(id);
    false
}

fn interrupt(kernel: &Kernel, run_id: Option<&str>) -> ReplyBody {
    match kernel.runs.interrupt(&kernel.processes, run_id) {
        Interrupted::Active | Interrupted::Idle => ReplyBody::Done,
        Interrupted::Unknown => error(ErrorCode::NotFound),
        Interrupted::Dequeued(run_id) => {
            let exit_code = super::executor::INTERRUPTED;
            kernel.outbox.event(Event::Finished { run_id, exit_code, signal: None });
            ReplyBody::Done
        }
    }
}

fn status(kernel: &Kernel) -> Status {
    let names = kernel.runs.names();
    Status {
        started_at: kernel.started_at,
        interpreter: kernel.interpreter.state(),
        active: names.active,
        waiting_input: kernel.input.is_waiting(),
        queued: names.queued,
        finished: names.finished,
    }
}

fn error(code: ErrorCode) -> ReplyBody {
    let message = match code {
        ErrorCode::Invalid => "the run id is empty or too long",
        ErrorCode::QueueFull => "too many runs are queued",
        ErrorCode::NotFound => "no such run, or nothing waits for input",
        ErrorCode::ShuttingDown => "the kernel is being ended",
    };
    ReplyBody::Error { code, message: message.to_owned() }
}
