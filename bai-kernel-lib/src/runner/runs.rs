//! The queue of runs: strictly one after another, each once.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::sys::{
    eventfd::{EfdFlags, EventFd},
    signal::Signal,
};

use super::{
    process::{Process, Processes},
    supervise::lock,
};
use crate::protocol::{ErrorCode, MAX_RUN_ID, Work};

/// How many finished runs are remembered, to recognise a command that is sent again.
const REMEMBERED: usize = 512;

/// A queued run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) run_id: String,
    pub(super) work: Work,
}

#[derive(Debug)]
pub(super) struct Runs {
    max_queued: usize,
    state: Mutex<State>,
    /// Signalled when there is something for the executor.
    wake: EventFd,
    want_interpreter: AtomicBool,
    finished: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Run>,
    active: Option<Active>,
    finished: VecDeque<String>,
    /// An interrupt came while a run was queued and none active: it is for the first.
    interrupt_next: bool,
    closed: bool,
}

#[derive(Debug)]
struct Active {
    run_id: String,
    /// The process that an interrupt goes to, while there is one.
    target: Option<Process>,
    interrupted: bool,
    /// An interrupt came while there was no target.
    owed: bool,
}

/// What became of an interrupt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Interrupted {
    /// Sent to the active run, or noted for it.
    Active,
    /// Nothing was active.
    Idle,
    /// The run was still queued and is not any more.
    Dequeued(String),
    /// No such run.
    Unknown,
}

/// The names that [`crate::protocol::Status`] shows.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) active: Option<String>,
    pub(super) queued: Vec<String>,
    pub(super) finished: Vec<String>,
}

impl Runs {
    pub(super) fn new(max_queued: usize) -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self {
            max_queued,
            state: Mutex::default(),
            wake,
            want_interpreter: AtomicBool::new(false),
            finished: Condvar::new(),
        })
    }

    /// Queues a run. `Ok(true)` when the run id is known already.
    pub(super) fn submit(&self, run: Run) -> Result<bool, ErrorCode> {
        if run.run_id.is_empty() || run.run_id.len() > MAX_RUN_ID {
            return Err(ErrorCode::Invalid);
        }
        let mut state = lock(&self.state);
        if state.knows(&run.run_id) {
            return Ok(true);
        }
        if state.closed {
            return Err(ErrorCode::ShuttingDown);
        }
        if state.queue.len() >= self.max_queued {
            return Err(ErrorCode::QueueFull);
        }
        state.queue.push_back(run);
        drop(state);
        self.wake();
        Ok(false)
    }

    /// Takes the next run out of the queue and makes it the active one.
    pub(super) fn next(&self) -> Option<Run> {
        let _ = self.wake.read();
        let mut state = lock(&self.state);
        let run = state.queue.pop_front()?;
        let due = std::mem::take(&mut state.interrupt_next);
        state.active = Some(Active { run_id: run.run_id.clone(), target: None, interrupted: due, owed: due });
        Some(run)
    }

    /// The active run is over. Reports it while nobody can see the new state, so that whoever hears the report
    /// finds the run finished.
    pub(super) fn finish(&self, report: impl FnOnce(String)) {
        let mut state = lock(&self.state);
        if let Some(Active { run_id, .. }) = state.active.take() {
            state.remember(run_id.clone());
            report(run_id);
        }
        self.finished.notify_all();
    }

    /// The name of the active run.
    pub(super) fn active(&self) -> Option<String> {
        lock(&self.state).active.as_ref().map(|active| active.run_id.clone())
    }

    /// Waits until no run is active, or the time is over.
    pub(super) fn wait_finished(&self, timeout: Duration) {
        let state = lock(&self.state);
        drop(self.finished.wait_timeout_while(state, timeout, |state| state.active.is_some()));
    }

    /// Names the process that interrupts of the active run go to from now on. One that came too early is sent now.
    pub(super) fn set_target(&self, processes: &Processes, target: Option<&Process>) {
        let mut state = lock(&self.state);
        let Some(active) = &mut state.active else { return };
        active.target = target.cloned();
        if let Some(target) = target.filter(|_| active.owed) {
            active.owed = false;
            processes.signal_group(target, Signal::SIGINT);
        }
    }

    /// Whether the active run was interrupted.
    pub(super) fn interrupted(&self) -> bool {
        lock(&self.state).active.as_ref().is_some_and(|active| active.interrupted)
    }

    /// Interrupts the active run, or drops a queued one.
    pub(super) fn interrupt(&self, processes: &Processes, run_id: Option<&str>) -> Interrupted {
        let mut state = lock(&self.state);
        if let Some(active) = state.active.as_mut().filter(|a| run_id.is_none_or(|id| id == a.run_id)) {
            active.interrupted = true;
            match &active.target {
                Some(target) => processes.signal_group(target, Signal::SIGINT),
                None => active.owed = true,
            }
            return Interrupted::Active;
        }
        let Some(run_id) = run_id else {
            // Accepted already, so for whoever interrupts it is the run in progress.
            state.interrupt_next = !state.queue.is_empty();
            return if state.interrupt_next { Interrupted::Active } else { Interrupted::Idle };
        };
        match state.queue.iter().position(|run| run.run_id == run_id) {
            Some(index) => {
                state.queue.remove(index);
                state.interrupt_next &= index > 0;
                state.remember(run_id.to_owned());
                Interrupted::Dequeued(run_id.to_owned())
            }
            None if state.finished.iter().any(|id| id == run_id) => Interrupted::Idle,
            None => Interrupted::Unknown,
        }
    }

    /// Accepts no more runs and forgets the queued ones.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.queue.clear();
    }

    pub(super) fn names(&self) -> Names {
        let state = lock(&self.state);
        Names {
            active: state.active.as_ref().map(|active| active.run_id.clone()),
            queued: state.queue.iter().map(|run| run.run_id.clone()).collect(),
            finished: state.finished.iter().cloned().collect(),
        }
    }

    /// Asks the executor to start the interpreter when it has nothing better to do.
    pub(super) fn ask_for_interpreter(&self) {
        self.want_interpreter.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn take_interpreter_request(&self) -> bool {
        self.want_interpreter.swap(false, Ordering::AcqRel)
    }

    /// Readable when the executor should look again.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn wake(&self) {
        let _ = self.wake.write(1);
    }
}

impl State {
    fn knows(&self, run_id: &str) -> bool {
        self.active.as_ref().is_some_and(|active| active.run_id == run_id)
            || self.queue.iter().any(|run| run.run_id == run_id)
            || self.finished.iter().any(|id| id == run_id)
    }

    fn remember(&mut self, run_id: String) {
        if self.finished.len() >= REMEMBERED {
            self.finished.pop_front();
        }
        self.finished.push_back(run_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::BatchSteps;

    fn run(run_id: &str) -> Run {
        Run { run_id: run_id.into(), work: Work::Batch(BatchSteps::default()) }
    }

    #[test]
    fn a_run_is_accepted_once_and_in_order() {
        let runs = Runs::new(2).unwrap();
        assert_eq!(runs.submit(run("a")), Ok(false));
        assert_eq!(runs.submit(run("b")), Ok(false));
        assert_eq!(runs.submit(run("a")), Ok(true));
        assert_eq!(runs.submit(run("c")), Err(ErrorCode::QueueFull));
        assert_eq!(runs.next().unwrap().run_id, "a");
        assert_eq!(runs.submit(run("a")), Ok(true));
        runs.finish(|run_id| assert_eq!(run_id, "a"));
        assert_eq!(runs.submit(run("a")), Ok(true));
        assert_eq!(runs.next().unwrap().run_id, "b");
        assert!(runs.next().is_none());
    }

    #[test]
    fn bad_run_ids_are_refused() {
        let runs = Runs::new(2).unwrap();
        assert_eq!(runs.submit(run("")), Err(ErrorCode::Invalid));
        assert_eq!(runs.submit(run(&"x".repeat(MAX_RUN_ID + 1))), Err(ErrorCode::Invalid));
    }

    #[test]
    fn interrupts_find_their_run() {
        let (runs, processes) = (Runs::new(8).unwrap(), Processes::default());
        assert_eq!(runs.interrupt(&processes, None), Interrupted::Idle);
        runs.submit(run("a")).unwrap();
        runs.submit(run("b")).unwrap();
        runs.next().unwrap();
        assert_eq!(runs.interrupt(&processes, Some("b")), Interrupted::Dequeued("b".into()));
        assert!(!runs.interrupted());
        assert_eq!(runs.interrupt(&processes, Some("x")), Interrupted::Unknown);
        assert_eq!(runs.interrupt(&processes, None), Interrupted::Active);
        assert!(runs.interrupted());
        runs.finish(drop);
        assert_eq!(runs.interrupt(&processes, Some("a")), Interrupted::Idle);
    }

    #[test]
    fn a_run_that_is_about_to_begin_is_interrupted_too() {
        let (runs, processes) = (Runs::new(8).unwrap(), Processes::default());
        for run_id in ["a", "b"] {
            runs.submit(run(run_id)).unwrap();
        }
        assert_eq!(runs.interrupt(&processes, None), Interrupted::Active);
        assert_eq!(runs.next().unwrap().run_id, "a");
        assert!(runs.interrupted());
        runs.finish(drop);
        assert_eq!(runs.next().unwrap().run_id, "b");
        assert!(!runs.interrupted());
    }
}
