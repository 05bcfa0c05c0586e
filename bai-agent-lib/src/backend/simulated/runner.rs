use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bai_kernel_lib::protocol::{
    BatchSteps, Command, ErrorCode, Event, InterpreterState, ReplyBody, Status, Stream, Work,
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use super::language::{Expression, Statement, query, shell};
use crate::runner::{Connection, Incoming, Runner};

/// CPU time that each statement is said to take.
const STATEMENT_MS: f64 = 1.0;
/// Exit code of what was interrupted.
const INTERRUPTED: i32 = 130;
/// Finished runs that are remembered.
const REMEMBERED: usize = 256;

/// The runner of a simulated kernel. It belongs to the back end; agents connect to it.
#[derive(Debug)]
pub(super) struct SimRunner {
    boot: Arc<str>,
    state: Mutex<State>,
    /// A frame, an input line, an interrupt or the end has come.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    seq: u64,
    /// Frames that were not acknowledged.
    frames: VecDeque<(u64, Incoming)>,
    queue: VecDeque<(String, Work)>,
    known: HashSet<String>,
    finished: VecDeque<String>,
    active: Option<String>,
    variables: HashMap<String, String>,
    waiting: bool,
    input: Option<String>,
    interrupted: bool,
    statements: f64,
    over: bool,
}

impl SimRunner {
    pub(super) fn new() -> Arc<Self> {
        let boot = hex::encode(rand::random::<[u8; 8]>()).into();
        Arc::new(Self { boot, state: Mutex::default(), changed: Notify::new() })
    }

    /// The kernel has ended.
    pub(super) fn end(&self) {
        self.state.lock().over = true;
        self.changed.notify_waiters();
    }

    pub(super) fn cpu_ms(&self) -> f64 {
        self.state.lock().statements * STATEMENT_MS
    }

    /// Connects: all frames that were not acknowledged are there at once.
    pub(super) fn connect(runner: &Arc<Self>) -> Connection {
        let state = runner.state.lock();
        let (sender, receiver) = mpsc::channel(state.frames.len() + 64);
        let connected = Incoming::Connected { boot: Arc::clone(&runner.boot) };
        for incoming in std::iter::once(connected).chain(state.frames.iter().map(|(_, frame)| frame.clone()))
        {
            // There is room for all of them.
            let _ = sender.try_send(incoming);
        }
        tokio::spawn(Arc::clone(runner).forward(sender, state.seq));
        (Arc::new(SimLink(Arc::clone(runner))), receiver)
    }

    async fn forward(self: Arc<Self>, to: mpsc::Sender<Incoming>, mut sent: u64) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (next, over) = {
                let state = self.state.lock();
                (state.frames.iter().find(|(seq, _)| *seq > sent).cloned(), state.over)
            };
            match next {
                Some((seq, frame)) => {
                    sent = seq;
                    if to.send(frame).await.is_err() {
                        return;
                    }
                }
                None if over => return,
                None => tokio::select! {
                    () = changed => {}
                    () = to.closed() => return,
                },
            }
        }
    }

    fn emit(&self, make: impl FnOnce(u64) -> Incoming) {
        let mut state = self.state.lock();
        state.seq += 1;
        let seq = state.seq;
        state.frames.push_back((seq, make(seq)));
        drop(state);
        self.changed.notify_waiters();
    }

    fn event(&self, event: Event) {
        self.emit(|seq| Incoming::Event { seq, event });
    }

    fn output(&self, run_id: &str, stream: Stream, text: String) {
        self.emit(|seq| Incoming::Output { seq, run_id: run_id.to_owned(), stream, data: Bytes::from(text) });
    }

    fn execute(self: &Arc<Self>, run_id: String, work: Work) -> ReplyBody {
        let mut state = self.state.lock();
        if !state.known.insert(run_id.clone()) {
            return ReplyBody::Accepted { duplicate: true };
        }
        state.queue.push_back((run_id, work));
        if state.active.is_none() {
            state.active = Some(String::new());
            tokio::spawn(Arc::clone(self).run_queue());
        }
        ReplyBody::Accepted { duplicate: false }
    }

    async fn run_queue(self: Arc<Self>) {
        loop {
            let (run_id, work) = {
                let mut state = self.state.lock();
                let next = if state.over { None } else { state.queue.pop_front() };
                state.active = next.as_ref().map(|(run_id, _)| run_id.clone());
                state.interrupted = false;
                let Some(next) = next else { return };
                next
            };
            self.event(Event::Started { run_id: run_id.clone() });
            let exit_code = match work {
                Work::Query { code, .. } => self.query(&run_id, &code).await,
                Work::Batch(steps) => self.batch(&run_id, steps).await,
            };
            let mut state = self.state.lock();
            if state.over {
                return;
            }
            state.finished.push_back(run_id.clone());
            if state.finished.len() > REMEMBERED {
                state.finished.pop_front();
            }
            drop(state);
            self.event(Event::Finished { run_id, exit_code, signal: None });
        }
    }

    /// The exit code of a query is always 0, whatever happens in it.
    async fn query(&self, run_id: &str, code: &str) -> i32 {
        if self.statements(run_id, query(code)).await == INTERRUPTED {
            self.output(run_id, Stream::Stderr, "KeyboardInterrupt\n".into());
        }
        0
    }

    async fn batch(&self, run_id: &str, steps: BatchSteps) -> i32 {
        let clean = self.step(run_id, steps.clean).await;
        self.event(Event::CleanFinished { run_id: run_id.to_owned(), exit_code: clean });
        let build = self.step(run_id, steps.build).await;
        self.event(Event::BuildFinished { run_id: run_id.to_owned(), exit_code: build });
        if build == 0 { self.step(run_id, steps.exec).await } else { 127 }
    }

    async fn step(&self, run_id: &str, command: Option<String>) -> i32 {
        self.statements(run_id, shell(command.as_deref().unwrap_or_default())).await
    }

    async fn statements(&self, run_id: &str, statements: Vec<Statement>) -> i32 {
        for statement in statements {
            self.state.lock().statements += 1.0;
            let ended = match statement {
                Statement::Print(value) => match self.value(run_id, value).await {
                    Some(text) => {
                        self.output(run_id, Stream::Stdout, format!("{text}\n"));
                        None
                    }
                    None => Some(INTERRUPTED),
                },
                Statement::Assign(name, value) => match self.value(run_id, value).await {
                    Some(text) => {
                        self.state.lock().variables.insert(name, text);
                        None
                    }
                    None => Some(INTERRUPTED),
                },
                Statement::Sleep(time) => (!self.sleep(time).await).then_some(INTERRUPTED),
                Statement::Fail(text, code) => {
                    self.output(run_id, Stream::Stderr, text);
                    Some(code)
                }
                Statement::Exit(code) => Some(code),
            };
            if let Some(code) = ended {
                return code;
            }
        }
        0
    }

    /// The value of an expression; `None` when interrupted.
    async fn value(&self, run_id: &str, expression: Expression) -> Option<String> {
        match expression {
            Expression::Text(text) => Some(text),
            Expression::Variable(name) => {
                Some(self.state.lock().variables.get(&name).cloned().unwrap_or_default())
            }
            Expression::Input(prompt) => {
                if !prompt.is_empty() {
                    self.output(run_id, Stream::Stdout, prompt);
                }
                self.state.lock().waiting = true;
                self.event(Event::WaitingInput { run_id: run_id.to_owned(), is_password: false });
                let line = self.until(|state| state.input.take()).await;
                self.state.lock().waiting = false;
                line
            }
        }
    }

    /// Waits; `false` when interrupted.
    async fn sleep(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.until(|_| None::<()>)).await.is_err()
    }

    /// Waits for something in the state; `None` when interrupted or over.
    async fn until<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.state.lock();
                if state.interrupted || state.over {
                    return None;
                }
                if let Some(found) = look(&mut state) {
                    return Some(found);
                }
            }
            changed.await;
        }
    }

    fn input(&self, run_id: Option<&str>, text: String) -> ReplyBody {
        let mut state = self.state.lock();
        let asked = state.waiting && run_id.is_none_or(|id| state.active.as_deref() == Some(id));
        if !asked {
            return ReplyBody::Error { code: ErrorCode::NotFound, message: "nothing waits for input".into() };
        }
        state.input = Some(text);
        ReplyBody::Done
    }

    fn interrupt(&self, run_id: Option<&str>) -> ReplyBody {
        let mut state = self.state.lock();
        if let Some(at) = run_id.and_then(|id| state.queue.iter().position(|(queued, _)| queued == id)) {
            let Some((run_id, _)) = state.queue.remove(at) else { return ReplyBody::Done };
            drop(state);
            self.event(Event::Finished { run_id, exit_code: INTERRUPTED, signal: None });
            return ReplyBody::Done;
        }
        state.interrupted =
            state.active.is_some() && run_id.is_none_or(|id| state.active.as_deref() == Some(id));
        ReplyBody::Done
    }

    fn complete(&self, code: &str) -> ReplyBody {
        let from = code.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
        let word = code.get(from..).unwrap_or_default();
        let state = self.state.lock();
        let names = state.variables.keys().map(String::as_str).chain(["print", "input"]);
        let mut found: Vec<String> = names.filter(|name| name.starts_with(word)).map(str::to_owned).collect();
        found.sort();
        ReplyBody::Completions(found)
    }

    fn status(&self) -> ReplyBody {
        let state = self.state.lock();
        let active = state.active.clone().filter(|id| !id.is_empty());
        ReplyBody::Status(Status {
            started_at: 0.0,
            interpreter: if active.is_some() { InterpreterState::Busy } else { InterpreterState::Idle },
            active,
            waiting_input: state.waiting,
            queued: state.queue.iter().map(|(run_id, _)| run_id.clone()).collect(),
            finished: state.finished.iter().cloned().collect(),
        })
    }
}

/// An agent's connection.
#[derive(Debug)]
struct SimLink(Arc<SimRunner>);

impl Runner for SimLink {
    fn send(&self, command: Command) -> oneshot::Receiver<ReplyBody> {
        let (answer, pending) = oneshot::channel();
        if self.0.state.lock().over {
            return pending;
        }
        let reply = match command {
            Command::Execute { run_id, work } => self.0.execute(run_id, work),
            Command::Input { run_id, text } => self.0.input(run_id.as_deref(), text),
            Command::Interrupt { run_id } => self.0.interrupt(run_id.as_deref()),
            Command::Complete(completion) => self.0.complete(&completion.code),
            Command::Status => self.0.status(),
            Command::Shutdown { .. } => ReplyBody::Done,
        };
        self.0.changed.notify_waiters();
        // The caller may not care.
        let _ = answer.send(reply);
        pending
    }

    fn ack(&self, boot: &Arc<str>, seq: u64) {
        if *boot == self.0.boot {
            self.0.state.lock().frames.retain(|(frame, _)| *frame > seq);
        }
    }
}
