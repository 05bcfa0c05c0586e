use std::sync::Arc;
use std::time::Duration;

use bai_core::error::{Error, Result, code};
use bai_core::execution::{ExecuteReply, RunStatus};
use bai_kernel_lib::protocol::{Event, Status, Stream};
use indexmap::IndexMap;
use parking_lot::Mutex;
use serde_json::{Map, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::buffer::{Buffer, item_bytes};

/// Run of the startup command of a batch session: its output goes to the log only.
pub(crate) const BATCH_RUN: &str = "batch-job";
/// Exit code of runs whose kernel has gone.
const VANISHED: i32 = 130;

/// Bounds of what is kept for clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunsLimits {
    /// A reply is given early once this many bytes wait.
    pub(crate) reply_bytes: usize,
    /// From this many bytes on, output that nobody reads is given up after `unread_timeout`. Less than the runner keeps.
    pub(crate) hold_bytes: usize,
    /// How long the runner is held back for the sake of a client that does not read.
    pub(crate) unread_timeout: Duration,
    /// Bytes kept of a run whose output was given up, and of a final reply.
    pub(crate) kept_bytes: usize,
    /// Runs remembered.
    pub(crate) runs: usize,
}

impl Default for RunsLimits {
    fn default() -> Self {
        Self {
            reply_bytes: 2 << 20,
            hold_bytes: 4 << 20,
            unread_timeout: Duration::from_secs(5),
            kept_bytes: 1 << 20,
            runs: 64,
        }
    }
}

/// The runs of one start of a kernel.
#[derive(Debug)]
pub(crate) struct Runs {
    limits: RunsLimits,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    runs: IndexMap<String, Run>,
    /// Start of the runner that frame numbers belong to.
    boot: Arc<str>,
    /// Number of the last frame received.
    received: u64,
    /// The kernel is being ended.
    closing: bool,
    /// When code last ran, or the kernel was taken on.
    used: Instant,
}

#[derive(Debug)]
struct Run {
    buffer: Buffer,
    /// Waits for a line of input; whether it is a password.
    waiting: Option<bool>,
    /// Exit code, once it has ended.
    exit: Option<i32>,
    /// The kernel went away under it.
    vanished: bool,
    /// The runner refused it.
    refused: Option<Error>,
    /// The final reply, kept for a client that lost it.
    last: Option<ExecuteReply>,
    /// Number of the first frame that no reply has taken.
    unread_from: Option<u64>,
    readers: u32,
    last_read: Instant,
    /// Output is given up until the client comes back.
    dropping: bool,
}

impl Run {
    fn new() -> Self {
        Self {
            buffer: Buffer::default(),
            waiting: None,
            exit: None,
            vanished: false,
            refused: None,
            last: None,
            unread_from: None,
            readers: 0,
            last_read: Instant::now(),
            dropping: false,
        }
    }

    fn received(&mut self, seq: u64) {
        if !self.dropping {
            self.unread_from.get_or_insert(seq);
        }
    }

    fn finish(&mut self, exit: i32) {
        self.buffer.flush();
        self.waiting = None;
        self.exit.get_or_insert(exit);
    }

    /// What there is to say now; `None` when waiting may bring more.
    fn reply(&mut self, id: &str, limits: &RunsLimits, now: bool) -> Option<ExecuteReply> {
        if let Some(last) = &self.last {
            return Some(last.clone());
        }
        let due = self.exit.is_some() || self.waiting.is_some() || self.buffer.has_step();
        (now || due || self.buffer.bytes() >= limits.reply_bytes).then(|| self.take(id, limits))
    }

    fn take(&mut self, id: &str, limits: &RunsLimits) -> ExecuteReply {
        let (console, step) = self.buffer.take();
        let (status, exit_code) = match (step, self.exit, self.waiting) {
            (Some((status, exit_code)), ..) => (status, Some(exit_code)),
            (None, Some(exit_code), _) => (RunStatus::Finished, Some(exit_code)),
            (None, None, Some(_)) => (RunStatus::WaitingInput, None),
            (None, None, None) => (RunStatus::Continued, None),
        };
        let options = match (status, self.waiting) {
            (RunStatus::WaitingInput, Some(is_password)) => {
                json!({"is_password": is_password}).as_object().cloned()
            }
            (RunStatus::Finished, _) if self.vanished => Some(Map::new()),
            _ => None,
        };
        let reply = ExecuteReply { run_id: id.to_owned(), status, exit_code, options, console };
        if status == RunStatus::Finished {
            self.remember(&reply, limits);
        }
        // A pending prompt stays unacknowledged, so that a later agent learns of it.
        if self.buffer.is_empty() && self.waiting.is_none() && (self.exit.is_none() || self.last.is_some()) {
            self.unread_from = None;
        }
        reply
    }

    fn remember(&mut self, reply: &ExecuteReply, limits: &RunsLimits) {
        let mut last = reply.clone();
        if last.console.iter().map(item_bytes).sum::<usize>() > limits.kept_bytes {
            last.console.clear();
        }
        self.last = Some(last);
    }

    /// When its unread output may be given up.
    fn patience_ends(&self, limits: &RunsLimits) -> Option<Instant> {
        let unread = self.readers == 0 && !self.dropping && self.unread_from.is_some();
        unread.then(|| self.last_read + limits.unread_timeout)
    }

    fn give_up(&mut self, limits: &RunsLimits) {
        self.buffer.cut(limits.kept_bytes);
        self.buffer.text(Stream::Stderr, "\n[output dropped: nobody read it]\n".into());
        self.dropping = true;
        self.unread_from = None;
    }
}

impl Runs {
    pub(crate) fn new(limits: RunsLimits) -> Self {
        let state = State {
            runs: IndexMap::new(),
            boot: Arc::from(""),
            received: 0,
            closing: false,
            used: Instant::now(),
        };
        Self { limits, state: Mutex::new(state), changed: Notify::new() }
    }

    /// Registers a run and calls `send`, in this order for all runs; `None` when the run is known already.
    pub(crate) fn begin<T>(&self, id: &str, send: impl FnOnce() -> T) -> Option<T> {
        let mut state = self.state.lock();
        if state.runs.contains_key(id) {
            return None;
        }
        state.used = Instant::now();
        state.runs.insert(id.to_owned(), Run::new());
        state.evict(&self.limits);
        Some(send())
    }

    /// The runner will not run it.
    pub(crate) fn refuse(&self, id: &str, error: Error) {
        if let Some(run) = self.state.lock().runs.get_mut(id).filter(|run| run.exit.is_none()) {
            run.refused = Some(error);
        }
        self.changed.notify_waiters();
    }

    /// Calls `send` if the run waits for input, which it then no longer does.
    ///
    /// # Errors
    /// `Invalid` when the run is unknown or does not wait.
    pub(crate) fn answer<T>(&self, id: &str, send: impl FnOnce() -> T) -> Result<T> {
        let mut state = self.state.lock();
        let run = state.runs.get_mut(id).ok_or_else(|| unknown(id))?;
        match run.waiting.take() {
            Some(_) => {
                run.unread_from = run.unread_from.filter(|_| !run.buffer.is_empty());
                Ok(send())
            }
            None => Err(Error::of(code::BAD_REQUEST, "the run does not wait for input").with("run", id)),
        }
    }

    /// A connection to the runner is open.
    pub(crate) fn connected(&self, boot: &Arc<str>) {
        let mut state = self.state.lock();
        if state.boot == *boot {
            return;
        }
        let restarted = !state.boot.is_empty();
        state.boot = Arc::clone(boot);
        state.received = 0;
        for run in state.runs.values_mut() {
            run.unread_from = None;
            if restarted {
                run.finish(VANISHED);
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Output of a run.
    pub(crate) fn output(&self, seq: u64, id: &str, stream: Stream, data: &[u8]) {
        let mut state = self.state.lock();
        state.received = seq;
        if id.is_empty() || id == BATCH_RUN {
            return;
        }
        let run = state.run(id, &self.limits);
        if !run.dropping {
            run.received(seq);
            run.buffer.push(stream, data);
        }
        let waking = run.buffer.bytes() >= self.limits.reply_bytes;
        drop(state);
        if waking {
            self.changed.notify_waiters();
        }
    }

    /// An event of a run.
    pub(crate) fn event(&self, seq: u64, event: &Event) {
        let mut state = self.state.lock();
        state.received = seq;
        let closing = state.closing;
        let Some(id) = run_of(event).filter(|id| *id != BATCH_RUN) else { return };
        state.used = Instant::now();
        let run = state.run(id, &self.limits);
        match event {
            Event::WaitingInput { is_password, .. } => {
                run.buffer.flush();
                run.waiting = Some(*is_password);
            }
            Event::CleanFinished { exit_code, .. } => run.buffer.step(RunStatus::CleanFinished, *exit_code),
            Event::BuildFinished { exit_code, .. } => run.buffer.step(RunStatus::BuildFinished, *exit_code),
            // Ended with its kernel, which is what clients are to see.
            Event::Finished { .. } if closing => return,
            Event::Finished { exit_code, .. } => run.finish(*exit_code),
            _ => return,
        }
        run.received(seq);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Corrects what was replayed to a new agent by what the runner says it is doing.
    pub(crate) fn settle(&self, status: &Status) {
        let mut state = self.state.lock();
        for id in status.active.iter().chain(&status.queued).filter(|id| *id != BATCH_RUN) {
            state.run(id, &self.limits);
        }
        if !status.waiting_input {
            state.runs.values_mut().for_each(|run| run.waiting = None);
        }
    }

    /// The kernel is being ended: runs that end from now on were ended with it, and nothing is kept for a later agent, so that
    /// the runner need not wait for anybody.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
    }

    /// Whether [`Runs::close`] was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closing
    }

    /// The kernel has gone: what has not ended ends now.
    pub(crate) fn end(&self) {
        for run in self.state.lock().runs.values_mut().filter(|run| run.exit.is_none()) {
            run.vanished = true;
            run.finish(VANISHED);
        }
        self.changed.notify_waiters();
    }

    /// How long no code has run: zero while a run goes on and does not wait for input.
    pub(crate) fn unused_for(&self) -> Duration {
        let mut state = self.state.lock();
        if state.runs.values().any(|run| run.exit.is_none() && run.waiting.is_none()) {
            state.used = Instant::now();
        }
        state.used.elapsed()
    }

    /// Up to which frame the runner may forget, and of which of its starts.
    pub(crate) fn ack_point(&self) -> (Arc<str>, u64) {
        let state = self.state.lock();
        let unread = state.runs.values().filter_map(|run| run.unread_from).min().filter(|_| !state.closing);
        (Arc::clone(&state.boot), unread.map_or(state.received, |seq| seq.saturating_sub(1)))
    }

    /// When [`Runs::drop_unread`] is to be called, if ever.
    pub(crate) fn patience_ends(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.runs.values().filter_map(|run| run.patience_ends(&self.limits)).min().filter(|_| {
            let unread = state.runs.values().filter(|run| !run.dropping).map(|run| run.buffer.bytes());
            unread.sum::<usize>() >= self.limits.hold_bytes
        })
    }

    /// Gives up output that nobody has read for too long, so that the program and the runs behind it go on.
    pub(crate) fn drop_unread(&self) {
        let now = Instant::now();
        for run in self.state.lock().runs.values_mut() {
            if run.patience_ends(&self.limits).is_some_and(|end| end <= now) {
                run.give_up(&self.limits);
            }
        }
    }

    /// Waits until there is something to reply, at most for `flush`. Dropping the future loses nothing.
    ///
    /// # Errors
    /// `Invalid` when the run is unknown; the runner's error when it refused the run.
    pub(crate) async fn collect(&self, id: &str, flush: Duration) -> Result<ExecuteReply> {
        let deadline = Instant::now() + flush;
        let _reader = Reader::new(self, id)?;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let expired = Instant::now() >= deadline;
            if let Some(reply) = self.try_reply(id, expired)? {
                return Ok(reply);
            }
            let _ = tokio::time::timeout_at(deadline, changed).await;
        }
    }

    fn try_reply(&self, id: &str, now: bool) -> Result<Option<ExecuteReply>> {
        let mut state = self.state.lock();
        let run = state.runs.get_mut(id).ok_or_else(|| unknown(id))?;
        if let Some(error) = run.refused.take() {
            state.runs.shift_remove(id);
            return Err(error);
        }
        Ok(run.reply(id, &self.limits, now))
    }
}

impl State {
    /// The run `id`; one of an earlier agent is made again.
    fn run(&mut self, id: &str, limits: &RunsLimits) -> &mut Run {
        if !self.runs.contains_key(id) {
            self.runs.insert(id.to_owned(), Run::new());
            self.evict(limits);
        }
        self.runs.entry(id.to_owned()).or_insert_with(Run::new)
    }

    /// Forgets the oldest ended runs beyond the limit, those whose end was told first.
    fn evict(&mut self, limits: &RunsLimits) {
        while self.runs.len() > limits.runs {
            let ended = |run: &Run| run.exit.is_some() && run.readers == 0;
            let told = self.runs.values().position(|run| run.last.is_some() && run.readers == 0);
            let Some(oldest) = told.or_else(|| self.runs.values().position(ended)) else { return };
            self.runs.shift_remove_index(oldest);
        }
    }
}

/// Marks a run as being read.
struct Reader<'a> {
    runs: &'a Runs,
    id: &'a str,
}

impl<'a> Reader<'a> {
    fn new(runs: &'a Runs, id: &'a str) -> Result<Self> {
        let mut state = runs.state.lock();
        let run = state.runs.get_mut(id).ok_or_else(|| unknown(id))?;
        run.readers += 1;
        run.dropping = false;
        Ok(Self { runs, id })
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Some(run) = self.runs.state.lock().runs.get_mut(self.id) {
            run.readers = run.readers.saturating_sub(1);
            run.last_read = Instant::now();
        }
    }
}

/// The reply for a run in a kernel that has gone.
pub(crate) fn vanished(run_id: String) -> ExecuteReply {
    let (status, exit_code) = (RunStatus::Finished, Some(VANISHED));
    ExecuteReply { run_id, status, exit_code, options: Some(Map::new()), console: Vec::new() }
}

fn unknown(id: &str) -> Error {
    Error::of(code::BAD_REQUEST, "there is no such run").with("run", id)
}

fn run_of(event: &Event) -> Option<&str> {
    match event {
        Event::Started { run_id }
        | Event::WaitingInput { run_id, .. }
        | Event::CleanFinished { run_id, .. }
        | Event::BuildFinished { run_id, .. }
        | Event::Finished { run_id, .. } => Some(run_id),
        Event::Ready { .. } | Event::InterpreterExited { .. } => None,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
