//! Frames on their way to the agent: numbered, kept until acknowledged, replayed to a new connection.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use super::supervise::lock;
use crate::protocol::{Event, Reply, RunnerFrame, Stream, output_frame, set_seq};

/// Memory counted for a frame beside its bytes.
const FRAME_OVERHEAD: usize = 64;

/// Most bytes handed to a connection's writer at once.
const BATCH_BYTES: usize = 1 << 20;

/// Most replies waiting for a slow agent; its next request is not read before there is room.
const MAX_REPLIES: usize = 256;

pub(super) type Encoded = Arc<Vec<u8>>;

/// The buffer between everything that produces frames and the one connection that takes them.
#[derive(Debug)]
pub(super) struct Outbox {
    limit: usize,
    state: Mutex<State>,
    /// Something to send, or the connection changed.
    work: Condvar,
    /// Something was acknowledged, sent, or the outbox closed.
    room: Condvar,
}

#[derive(Debug)]
struct State {
    /// Unacknowledged frames in order; the first has number `first_seq`.
    frames: VecDeque<Encoded>,
    first_seq: u64,
    bytes: usize,
    /// How many of `frames` the current connection was given.
    sent: usize,
    replies: VecDeque<Encoded>,
    /// Which connection is current; 0 when there is none.
    connection: u64,
    closed: bool,
}

impl Outbox {
    pub(super) fn new(limit: usize) -> Self {
        let state = State {
            frames: VecDeque::new(),
            first_seq: 1,
            bytes: 0,
            sent: 0,
            replies: VecDeque::new(),
            connection: 0,
            closed: false,
        };
        Self { limit, state: Mutex::new(state), work: Condvar::new(), room: Condvar::new() }
    }

    /// Queues an event. Never waits: events are few and their senders must not block each other.
    pub(super) fn event(&self, event: Event) {
        let mut frame = Vec::new();
        let event = RunnerFrame::Event { seq: 0, event };
        if event.encode(&mut frame).is_ok() {
            self.append(&mut lock(&self.state), frame);
        }
    }

    /// Queues output, waiting while too much is unacknowledged: this is what slows a program down to the
    /// speed of its reader. After [`Outbox::close`] output is dropped instead.
    pub(super) fn output(&self, run_id: &str, stream: Stream, data: &[u8]) -> io::Result<()> {
        let mut frame = Vec::new();
        output_frame(&mut frame, 0, run_id, stream, data)?;
        let mut state = lock(&self.state);
        while state.bytes >= self.limit && !state.closed {
            state = self.room.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if state.bytes < self.limit {
            self.append(&mut state, frame);
        }
        Ok(())
    }

    fn append(&self, state: &mut MutexGuard<'_, State>, mut frame: Vec<u8>) {
        set_seq(&mut frame, state.first_seq + state.frames.len() as u64);
        state.bytes += frame.len() + FRAME_OVERHEAD;
        state.frames.push_back(Arc::new(frame));
        self.work.notify_all();
    }

    /// Queues a reply to a request that came over `connection`; forgotten when that is not current any more.
    pub(super) fn reply(&self, connection: u64, reply: Reply) {
        let mut frame = Vec::new();
        if RunnerFrame::Reply(reply).encode(&mut frame).is_err() {
            return;
        }
        let mut state = lock(&self.state);
        while state.connection == connection && state.replies.len() >= MAX_REPLIES && !state.closed {
            state = self.room.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if state.connection == connection {
            state.replies.push_back(Arc::new(frame));
            self.work.notify_all();
        }
    }

    /// Forgets every frame up to `seq`.
    pub(super) fn acknowledge(&self, seq: u64) {
        let mut state = lock(&self.state);
        while state.first_seq <= seq {
            let Some(frame) = state.frames.pop_front() else { break };
            state.first_seq += 1;
            state.bytes -= frame.len() + FRAME_OVERHEAD;
            state.sent = state.sent.saturating_sub(1);
        }
        self.room.notify_all();
    }

    /// Makes `connection` the current one. It will be given every unacknowledged frame; the first is
    /// the returned number.
    pub(super) fn attach(&self, connection: u64) -> u64 {
        let mut state = lock(&self.state);
        state.connection = connection;
        state.sent = 0;
        state.replies.clear();
        self.work.notify_all();
        self.room.notify_all();
        state.first_seq
    }

    /// `connection` is over.
    pub(super) fn detach(&self, connection: u64) {
        let mut state = lock(&self.state);
        if state.connection == connection {
            state.connection = 0;
            state.replies.clear();
        }
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Waits for frames that `connection` has not been given and puts them into `batch`.
    /// `false` means that it is not current any more.
    pub(super) fn next_batch(&self, connection: u64, batch: &mut Vec<Encoded>) -> bool {
        batch.clear();
        let mut state = lock(&self.state);
        loop {
            if state.connection != connection {
                return false;
            }
            if !state.replies.is_empty() || state.sent < state.frames.len() {
                break;
            }
            state = self.work.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        batch.extend(state.replies.drain(..));
        let mut bytes = 0;
        while bytes < BATCH_BYTES {
            let Some(frame) = state.frames.get(state.sent).cloned() else { break };
            bytes += frame.len();
            state.sent += 1;
            batch.push(frame);
        }
        self.room.notify_all();
        true
    }

    /// Nobody waits for room any more: the runner is about to end.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.room.notify_all();
    }

    /// Waits until the agent has acknowledged everything, no agent is there, or the time is over.
    pub(super) fn drain(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut state = lock(&self.state);
        while !state.frames.is_empty() && state.connection != 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.room.wait_timeout(state, left);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::LENGTH_BYTES;

    fn seqs(batch: &[Encoded]) -> Vec<u64> {
        let seq = |frame: &Encoded| match RunnerFrame::decode(&frame[LENGTH_BYTES..]).unwrap() {
            RunnerFrame::Output { seq, .. } | RunnerFrame::Event { seq, .. } => seq,
            other => panic!("{other:?}"),
        };
        batch.iter().map(seq).collect()
    }

    #[test]
    fn a_new_connection_gets_exactly_what_was_not_acknowledged() {
        let outbox = Outbox::new(1 << 20);
        for _ in 0..5 {
            outbox.output("r", Stream::Stdout, b"x").unwrap();
        }
        let mut batch = Vec::new();
        assert_eq!(outbox.attach(1), 1);
        assert!(outbox.next_batch(1, &mut batch));
        assert_eq!(seqs(&batch), [1, 2, 3, 4, 5]);
        outbox.acknowledge(2);
        outbox.output("r", Stream::Stdout, b"y").unwrap();
        assert!(outbox.next_batch(1, &mut batch));
        assert_eq!(seqs(&batch), [6]);
        assert_eq!(outbox.attach(2), 3);
        assert!(!outbox.next_batch(1, &mut batch));
        assert!(outbox.next_batch(2, &mut batch));
        assert_eq!(seqs(&batch), [3, 4, 5, 6]);
    }

    #[test]
    fn an_acknowledgement_from_the_future_does_no_harm() {
        let outbox = Outbox::new(1 << 20);
        outbox.output("r", Stream::Stdout, b"x").unwrap();
        outbox.acknowledge(1000);
        outbox.output("r", Stream::Stdout, b"y").unwrap();
        assert_eq!(outbox.attach(1), 2);
    }

    #[test]
    fn output_waits_for_room() {
        let outbox = Arc::new(Outbox::new(1000));
        outbox.output("r", Stream::Stdout, &[0; 1000]).unwrap();
        let writer = {
            let outbox = Arc::clone(&outbox);
            std::thread::spawn(move || outbox.output("r", Stream::Stdout, b"later").unwrap())
        };
        std::thread::sleep(Duration::from_millis(20));
        assert!(!writer.is_finished());
        outbox.acknowledge(1);
        writer.join().unwrap();
        assert_eq!(outbox.attach(1), 2);
    }
}
