//! The long-lived interpreter of query mode: a driver process and the messages exchanged with it.
//!
//! Beside the pipes of its output, a driver has two sockets, whose other ends its source describes
//! (`drivers/python.py`): control and completion. A message is a little-endian 32-bit length and JSON.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::Signal,
        socket::{MsgFlags, recv},
    },
};
use serde::{Deserialize, Serialize};

use super::{
    executor::ask,
    kernel::Kernel,
    process::{Exit, Process},
    pump::{Outputs, Sink},
    supervise::lock,
};
use crate::{
    drivers,
    protocol::{Completion, Event, InterpreterState, MAX_FRAME, Stream, read_frame},
};

/// How long a completion may take, the start of the interpreter not counted.
const COMPLETION_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a completion waits for an interpreter that is starting.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a message to a driver may wait for it to read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// What other threads may know of the interpreter.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<(InterpreterState, Option<Handle>)>,
    changed: Condvar,
}

/// The way to ask a running driver for completions.
#[derive(Clone, Debug)]
struct Handle {
    process: Process,
    completion: Arc<Mutex<UnixStream>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { state: Mutex::new((InterpreterState::Absent, None)), changed: Condvar::new() }
    }
}

impl Shared {
    pub(super) fn state(&self) -> InterpreterState {
        lock(&self.state).0
    }

    fn set(&self, state: InterpreterState) {
        let mut shared = lock(&self.state);
        shared.0 = state;
        if state == InterpreterState::Absent {
            shared.1 = None;
        }
        self.changed.notify_all();
    }

    fn started(&self, handle: Handle) {
        *lock(&self.state) = (InterpreterState::Starting, Some(handle));
        self.changed.notify_all();
    }

    /// The driver, once it has said hello.
    fn ready(&self, timeout: Duration) -> Option<Handle> {
        let deadline = Instant::now() + timeout;
        let mut shared = lock(&self.state);
        while !matches!(shared.0, InterpreterState::Idle | InterpreterState::Busy) {
            let left = deadline.checked_duration_since(Instant::now())?;
            shared = self.changed.wait_timeout(shared, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        shared.1.clone()
    }
}

/// The driver process, as the executor sees it.
#[derive(Debug)]
pub(super) struct Driver {
    process: Process,
    outputs: Outputs,
    control: UnixStream,
    /// Received bytes that are not a whole message yet.
    received: Vec<u8>,
    /// The driver closed its control socket: it is ending, or was broken by user code.
    control_closed: bool,
    cell: u64,
}

#[derive(Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
enum ToDriver<'a> {
    Exec { cell: u64, code: &'a str, strict: bool },
    Input { id: u64, text: &'a str },
    Go { id: u64 },
}

#[derive(Deserialize)]
struct FromDriver {
    op: String,
    #[serde(default)]
    id: u64,
    #[serde(default)]
    cell: u64,
    #[serde(default)]
    code: i32,
    #[serde(default)]
    mime: String,
    #[serde(default)]
    data: String,
    #[serde(default)]
    password: bool,
}

impl Driver {
    /// Starts the interpreter of the kernel's language. `None` when the image has none.
    pub(super) fn start(kernel: &Kernel) -> io::Result<Option<Self>> {
        let source = drivers::of(&kernel.config.runtime_type);
        let (Some(source), Some(program)) = (source, &kernel.environment.runtime) else { return Ok(None) };
        let text = memory_file(source.source.as_bytes())?;
        let (control, driver_control) = UnixStream::pair()?;
        let (completion, driver_completion) = UnixStream::pair()?;
        control.set_write_timeout(Some(WRITE_TIMEOUT))?;
        completion.set_write_timeout(Some(COMPLETION_TIMEOUT))?;
        completion.set_read_timeout(Some(COMPLETION_TIMEOUT))?;
        let inherited = [text, driver_control.into(), driver_completion.into()];
        let numbers = inherited.each_ref().map(|fd| std::os::fd::AsRawFd::as_raw_fd(fd).to_string());
        let mut argv = vec![program.into(), source.flag.into(), source.bootstrap.into()];
        argv.extend(numbers.map(Into::into));
        let (outputs, ends) = Outputs::pair()?;
        let mut command = kernel.launcher.command(&argv, &inherited.each_ref());
        let missing = source.variables.iter().filter(|(name, _)| !kernel.environment.has(name));
        command.envs(missing.copied()).stdout(ends.stdout).stderr(ends.stderr);
        let process = kernel.processes.spawn(&mut command)?;
        let completion = Arc::new(Mutex::new(completion));
        kernel.interpreter.started(Handle { process: process.clone(), completion });
        Ok(Some(Self { process, outputs, control, received: Vec::new(), control_closed: false, cell: 0 }))
    }

    /// Runs a cell to its end. When the interpreter ends instead, its exit is the result.
    pub(super) fn run(
        &mut self,
        kernel: &Kernel,
        code: &str,
        strict: bool,
        sink: &mut Sink<'_>,
    ) -> io::Result<Exit> {
        self.cell += 1;
        kernel.interpreter.set(InterpreterState::Busy);
        // A driver that has just died cannot be written to; the loop below finds out why.
        let _ = send(&self.control, &ToDriver::Exec { cell: self.cell, code, strict });
        loop {
            let asked = self.wait(kernel, sink)?;
            if asked {
                ask(kernel, &mut self.outputs, sink)?;
            }
            if let Some(exit) = self.receive(kernel, sink)? {
                return Ok(exit);
            }
            if let Some(exit) = self.process.exit() {
                kernel.runs.set_target(&kernel.processes, None);
                self.outputs.drain(sink)?;
                sink.say(&format!("The interpreter {}. The next query starts a new one.", exit.describe()));
                return Ok(exit);
            }
        }
    }

    /// Waits for something to do while no cell is running, and does it once.
    pub(super) fn idle(&mut self, kernel: &Kernel, sink: &mut Sink<'_>) -> io::Result<()> {
        let control = if self.control_closed { self.process.event() } else { self.control.as_fd() };
        let others = [kernel.runs.event(), kernel.input.event(), self.process.event(), control];
        self.outputs.wait(others, sink)?;
        self.receive(kernel, sink).map(drop)
    }

    /// Removes a driver that has ended, and tells the agent.
    pub(super) fn reap(driver: &mut Option<Self>, kernel: &Kernel, sink: &mut Sink<'_>) -> io::Result<()> {
        let Some(exit) = driver.as_ref().and_then(|driver| driver.process.exit()) else { return Ok(()) };
        kernel.interpreter.set(InterpreterState::Absent);
        kernel.outbox.event(Event::InterpreterExited { exit_code: exit.code, signal: exit.signal });
        if let Some(mut ended) = driver.take() {
            ended.outputs.drain(sink)?;
            ended.outputs.leave_to_log(&kernel.log);
        }
        Ok(())
    }

    /// Ends a driver that does not make sense any more.
    pub(super) fn kill(self, kernel: &Kernel) {
        kernel.processes.signal(&self.process, Signal::SIGKILL);
        kernel.interpreter.set(InterpreterState::Absent);
    }

    /// Waits during a cell. Says whether a script asks for input.
    fn wait(&mut self, kernel: &Kernel, sink: &mut Sink<'_>) -> io::Result<bool> {
        let control = if self.control_closed { self.process.event() } else { self.control.as_fd() };
        let [_, _, asked] = self.outputs.wait([control, self.process.event(), kernel.input.event()], sink)?;
        Ok(asked)
    }

    /// Handles the messages that are there. The exit of the current cell, if it is done.
    fn receive(&mut self, kernel: &Kernel, sink: &mut Sink<'_>) -> io::Result<Option<Exit>> {
        if self.read_control()? {
            // Without its control socket a driver is of no use; most often it is ending anyway.
            self.control_closed = true;
            kernel.processes.signal(&self.process, Signal::SIGKILL);
        }
        let mut start = 0;
        let mut result = None;
        while let Some((length, rest)) = self.received[start..].split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            if length > MAX_FRAME {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "message of the driver too large"));
            }
            let Some(body) = rest.get(..length) else { break };
            let message: FromDriver = serde_json::from_slice(body)?;
            start += 4 + length;
            result = self.handle(kernel, &message, sink)?.or(result);
        }
        self.received.drain(..start);
        Ok(result)
    }

    /// Reads what is there. `true` when the socket was closed.
    fn read_control(&mut self) -> io::Result<bool> {
        let mut part = [0; 16 << 10];
        while !self.control_closed {
            let fd = std::os::fd::AsRawFd::as_raw_fd(&self.control);
            match recv(fd, &mut part, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(Errno::ECONNRESET) => return Ok(true),
                Ok(count) => self.received.extend_from_slice(&part[..count]),
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(false)
    }

    fn handle(
        &mut self,
        kernel: &Kernel,
        message: &FromDriver,
        sink: &mut Sink<'_>,
    ) -> io::Result<Option<Exit>> {
        // Whatever was written before the message goes before what the message causes.
        self.outputs.drain(sink)?;
        match message.op.as_str() {
            "hello" if kernel.interpreter.state() == InterpreterState::Starting => {
                kernel.interpreter.set(InterpreterState::Idle);
            }
            "begin" if message.cell == self.cell => {
                kernel.runs.set_target(&kernel.processes, Some(&self.process));
            }
            "done" if message.cell == self.cell => {
                kernel.runs.set_target(&kernel.processes, None);
                kernel.interpreter.set(InterpreterState::Idle);
                return Ok(Some(Exit::code(message.code)));
            }
            "media" => {
                self.item(Stream::Media, &format!("{}\0{}", message.mime, message.data), message.id, sink)?;
            }
            "html" => self.item(Stream::Html, &message.data, message.id, sink)?,
            "sync" => self.go(message.id)?,
            "input" => self.ask(kernel, message, sink)?,
            _ => {}
        }
        Ok(None)
    }

    fn item(&self, stream: Stream, data: &str, id: u64, sink: &mut Sink<'_>) -> io::Result<()> {
        sink.write(stream, data.as_bytes())?;
        if id == 0 { Ok(()) } else { self.go(id) }
    }

    fn go(&self, id: u64) -> io::Result<()> {
        ignore_broken_pipe(send(&self.control, &ToDriver::Go { id }))
    }

    fn ask(&self, kernel: &Kernel, message: &FromDriver, sink: &Sink<'_>) -> io::Result<()> {
        let (control, id) = (self.control.try_clone()?, message.id);
        kernel.input.expect(sink.run_id(), move |text| send(&control, &ToDriver::Input { id, text }));
        let run_id = sink.run_id().to_owned();
        kernel.outbox.event(Event::WaitingInput { run_id, is_password: message.password });
        Ok(())
    }
}

/// Asks the interpreter for completions. Empty when there is none or it is too busy to answer.
pub(super) fn complete(kernel: &Kernel, request: &Completion, number: u64) -> Vec<String> {
    if drivers::of(&kernel.config.runtime_type).is_none() || kernel.environment.runtime.is_none() {
        return Vec::new();
    }
    if kernel.interpreter.state() == InterpreterState::Absent {
        kernel.runs.ask_for_interpreter();
    }
    let Some(handle) = kernel.interpreter.ready(START_TIMEOUT) else { return Vec::new() };
    let mut stream = lock(&handle.completion);
    exchange(kernel, &handle.process, &mut stream, request, number).unwrap_or_default()
}

fn exchange(
    kernel: &Kernel,
    process: &Process,
    stream: &mut UnixStream,
    request: &Completion,
    number: u64,
) -> io::Result<Vec<String>> {
    #[derive(Serialize)]
    struct Ask<'a> {
        id: u64,
        code: &'a str,
        line: &'a str,
        post: &'a str,
    }
    #[derive(Deserialize)]
    struct Answer {
        id: u64,
        suggestions: Vec<String>,
    }
    let Completion { code, line, post, .. } = request;
    send(stream, &Ask { id: number, code, line, post })?;
    kernel.processes.signal(process, Signal::SIGURG);
    let deadline = Instant::now() + COMPLETION_TIMEOUT;
    let mut body = Vec::new();
    while Instant::now() < deadline && read_frame(stream, MAX_FRAME, &mut body)? {
        let answer: Answer = serde_json::from_slice(&body)?;
        // An answer that came too late for its own question is skipped.
        if answer.id == number {
            return Ok(answer.suggestions);
        }
    }
    Ok(Vec::new())
}

/// Sends a message. Works on a shared reference, so that an answer can come from another thread: a message is
/// one write, and those of two threads do not mix in practice because the driver asks before it is answered.
fn send(mut stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut data = vec![0; 4];
    serde_json::to_writer(&mut data, message)?;
    let length = u32::try_from(data.len() - 4).map_err(io::Error::other)?;
    data[..4].copy_from_slice(&length.to_le_bytes());
    stream.write_all(&data)
}

/// A driver that is gone is noticed by its exit, not by a failed answer.
fn ignore_broken_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
        other => other,
    }
}

/// A file in memory that the driver can read from its start.
fn memory_file(content: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create(c"driver", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(content)?;
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
}
