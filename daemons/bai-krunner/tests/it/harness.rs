//! A runner in a temporary directory, and a small blocking agent to talk to it.

use std::{
    collections::VecDeque,
    fs,
    io::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command as Process},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use bai_kernel_lib::{
    config::{RunnerConfig, RuntimeType},
    protocol::{
        AgentFrame, BatchSteps, Command, Completion, Event, Hello, MAX_FRAME, Reply, ReplyBody, Request,
        RunnerFrame, Status, Stream, VERSION, Welcome, Work, media_parts, read_frame,
    },
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

pub(crate) const TOKEN: &str = "a token of the test";

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// The static runner, as every kernel gets it.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| bai_krunner_bin::install(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap())
}

pub(crate) struct Runner {
    _dir: TempDir,
    pub(crate) config: RunnerConfig,
    child: Child,
}

impl Runner {
    pub(crate) fn start(runtime: RuntimeType) -> Self {
        Self::start_with(runtime, |_| ())
    }

    pub(crate) fn start_with(runtime: RuntimeType, change: impl FnOnce(&mut RunnerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["work", "config", "ctl"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let mut config = RunnerConfig::new(dir.path().join("ctl/s"), TOKEN, runtime);
        config.kernel_id = "0123456789abcdef".into();
        config.work_dir = dir.path().join("work");
        config.config_dir = dir.path().join("config");
        config.runtime_dir = Some(dir.path().join("run"));
        config.log_file = Some(dir.path().join("ctl/task.log"));
        config.grace_ms = 500;
        change(&mut config);
        let file = dir.path().join("ctl/config.json");
        fs::write(&file, serde_json::to_vec(&config).unwrap()).unwrap();
        let child = Process::new(binary()).arg("--config").arg(file).spawn().unwrap();
        Self { _dir: dir, config, child }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.config.work_dir.join(name), text).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.config.log_file.as_ref().unwrap()).unwrap()).into_owned()
    }

    pub(crate) fn connect(&self) -> Agent {
        Agent::connect(&self.config.socket, TOKEN, None).expect("the runner accepts its token")
    }

    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), Signal::SIGTERM).unwrap();
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        until(|| self.child.try_wait().unwrap())
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            let _ = kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), Signal::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(10);
            while self.child.try_wait().unwrap().is_none() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Repeats `check` until it gives something.
pub(crate) fn until<T>(mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "it did not happen in time");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A frame that owns its data.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Frame {
    Reply(Reply),
    Event { seq: u64, event: Event },
    Output { seq: u64, run_id: String, stream: Stream, data: Vec<u8> },
}

/// What a run did.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Standard output and error as they came, adjacent pieces of one stream merged.
    pub(crate) console: Vec<(Stream, String)>,
    pub(crate) media: Vec<(String, String)>,
    pub(crate) html: Vec<String>,
    pub(crate) steps: Vec<(&'static str, i32)>,
    pub(crate) exit_code: i32,
    pub(crate) signal: Option<i32>,
}

pub(crate) struct Agent {
    stream: UnixStream,
    pub(crate) welcome: Welcome,
    pub(crate) last_seq: u64,
    /// Acknowledge every numbered frame at once.
    pub(crate) acknowledges: bool,
    next_id: u64,
    body: Vec<u8>,
    /// Numbered frames that came while a reply was awaited.
    early: VecDeque<Frame>,
}

impl Agent {
    /// Connects, waiting for the socket to appear. `None` when the runner closes the connection.
    pub(crate) fn connect(socket: &Path, token: &str, resume: Option<(&str, u64)>) -> Option<Self> {
        let stream = until(|| UnixStream::connect(socket).ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let hello = Hello {
            version: VERSION,
            token: token.into(),
            boot: resume.map(|(boot, _)| boot.into()),
            last_seq: resume.map(|(_, seq)| seq),
        };
        send(&stream, &AgentFrame::Hello(hello));
        let mut body = Vec::new();
        if !matches!(read_frame(&mut &stream, MAX_FRAME, &mut body), Ok(true)) {
            return None;
        }
        let RunnerFrame::Welcome(welcome) = RunnerFrame::decode(&body).unwrap() else { panic!("no welcome") };
        let next_id = u64::from(std::process::id()) << 32 | u64::from(welcome.first_seq as u32) << 16;
        let last_seq = welcome.first_seq - 1;
        Some(Self { stream, welcome, last_seq, acknowledges: true, next_id, body, early: VecDeque::new() })
    }

    pub(crate) fn send(&mut self, command: Command) -> u64 {
        self.next_id += 1;
        self.send_as(self.next_id, command);
        self.next_id
    }

    pub(crate) fn send_as(&mut self, id: u64, command: Command) {
        send(&self.stream, &AgentFrame::Request(Request { id, command }));
    }

    pub(crate) fn acknowledge(&self, seq: u64) {
        send(&self.stream, &AgentFrame::Ack(seq));
    }

    /// The next numbered frame or reply. `None` when the connection ended.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        if let Some(frame) = self.early.pop_front() {
            return Some(frame);
        }
        self.receive()
    }

    fn receive(&mut self) -> Option<Frame> {
        if !read_frame(&mut &self.stream, MAX_FRAME, &mut self.body).ok()? {
            return None;
        }
        let frame = match RunnerFrame::decode(&self.body).unwrap() {
            RunnerFrame::Reply(reply) => return Some(Frame::Reply(reply)),
            RunnerFrame::Event { seq, event } => Frame::Event { seq, event },
            RunnerFrame::Output { seq, run_id, stream, data } => {
                Frame::Output { seq, run_id: run_id.into(), stream, data: data.into() }
            }
            RunnerFrame::Welcome(_) => panic!("a second welcome"),
        };
        let (Frame::Event { seq, .. } | Frame::Output { seq, .. }) = frame else { unreachable!() };
        assert_eq!(seq, self.last_seq + 1, "frames come in order, none lost and none twice");
        self.last_seq = seq;
        if self.acknowledges {
            self.acknowledge(seq);
        }
        Some(frame)
    }

    /// The answer to a request; numbered frames before it are kept for later.
    pub(crate) fn reply(&mut self, id: u64) -> ReplyBody {
        loop {
            match self.receive().expect("the connection is open") {
                Frame::Reply(reply) if reply.id == id => return reply.body,
                Frame::Reply(other) => panic!("unexpected {other:?}"),
                frame => self.early.push_back(frame),
            }
        }
    }

    pub(crate) fn ask(&mut self, command: Command) -> ReplyBody {
        let id = self.send(command);
        self.reply(id)
    }

    pub(crate) fn status(&mut self) -> Status {
        let ReplyBody::Status(status) = self.ask(Command::Status) else { panic!("no status") };
        status
    }

    pub(crate) fn complete(&mut self, line: &str) -> Vec<String> {
        let completion = Completion { code: line.into(), ..Completion::default() };
        let ReplyBody::Completions(found) = self.ask(Command::Complete(completion)) else { panic!("none") };
        found
    }

    pub(crate) fn interrupt(&mut self) {
        assert_eq!(self.ask(Command::Interrupt { run_id: None }), ReplyBody::Done);
    }

    pub(crate) fn input(&mut self, text: &str) {
        assert_eq!(self.ask(Command::Input { run_id: None, text: text.into() }), ReplyBody::Done);
    }

    /// Queues a run.
    pub(crate) fn submit(&mut self, run_id: &str, work: Work) {
        let command = Command::Execute { run_id: run_id.into(), work };
        assert_eq!(self.ask(command), ReplyBody::Accepted { duplicate: false });
    }

    pub(crate) fn submit_query(&mut self, run_id: &str, code: &str) {
        self.submit(run_id, query(code));
    }

    /// Runs code to its end.
    pub(crate) fn query(&mut self, code: &str) -> Outcome {
        let run_id = format!("q{}", self.next_id);
        self.submit_query(&run_id, code);
        self.finish(&run_id)
    }

    pub(crate) fn batch(&mut self, clean: Option<&str>, build: Option<&str>, exec: Option<&str>) -> Outcome {
        let run_id = format!("b{}", self.next_id);
        self.submit(&run_id, batch(clean, build, exec));
        self.finish(&run_id)
    }

    /// Collects what a run does until it has finished.
    pub(crate) fn finish(&mut self, run_id: &str) -> Outcome {
        let mut outcome = Outcome::default();
        while !matches!(self.collect(run_id, &mut outcome), Some(Event::Finished { .. })) {}
        outcome
    }

    /// Collects until the run asks for input; says whether for a password.
    pub(crate) fn wait_for_prompt(&mut self, run_id: &str, outcome: &mut Outcome) -> bool {
        loop {
            if let Some(event) = self.collect(run_id, outcome) {
                let Event::WaitingInput { is_password, .. } = event else { panic!("no prompt: {outcome:?}") };
                return is_password;
            }
        }
    }

    /// Collects until standard output contains a text.
    pub(crate) fn wait_for_output(&mut self, run_id: &str, text: &str) -> Outcome {
        let mut outcome = Outcome::default();
        while !outcome.stdout.contains(text) {
            assert_eq!(self.collect(run_id, &mut outcome), None, "{outcome:?}");
        }
        outcome
    }

    /// Takes one frame of a run. Returns the event when the run ended or waits.
    fn collect(&mut self, run_id: &str, outcome: &mut Outcome) -> Option<Event> {
        match self.next().expect("the connection is open") {
            Frame::Output { run_id: id, stream, data, .. } if id == run_id => outcome.add(stream, &data),
            Frame::Event { event, .. } => match &event {
                Event::CleanFinished { exit_code, .. } => outcome.steps.push(("clean", *exit_code)),
                Event::BuildFinished { exit_code, .. } => outcome.steps.push(("build", *exit_code)),
                Event::WaitingInput { run_id: id, .. } if id == run_id => return Some(event),
                Event::Finished { run_id: id, exit_code, signal } if id == run_id => {
                    (outcome.exit_code, outcome.signal) = (*exit_code, *signal);
                    return Some(event);
                }
                _ => {}
            },
            _ => {}
        }
        None
    }
}

impl Outcome {
    fn add(&mut self, stream: Stream, data: &[u8]) {
        let text = String::from_utf8_lossy(data);
        match stream {
            Stream::Stdout => self.stdout += &text,
            Stream::Stderr => self.stderr += &text,
            Stream::Media => {
                let (mime, data) = media_parts(data).unwrap();
                self.media.push((mime.into(), data.into()));
            }
            Stream::Html => self.html.push(text.clone().into_owned()),
            Stream::Log => {}
        }
        if matches!(stream, Stream::Stdout | Stream::Stderr) {
            match self.console.last_mut() {
                Some((last, merged)) if *last == stream => *merged += &text,
                _ => self.console.push((stream, text.into())),
            }
        }
    }
}

fn send(mut stream: &UnixStream, frame: &AgentFrame) {
    let mut wire = Vec::new();
    frame.encode(&mut wire).unwrap();
    // The runner may have closed the connection; the next read tells.
    let _ = stream.write_all(&wire);
}

pub(crate) fn query(code: &str) -> Work {
    Work::Query { code: code.into(), strict_exit: false }
}

pub(crate) fn batch(clean: Option<&str>, build: Option<&str>, exec: Option<&str>) -> Work {
    let text = |step: Option<&str>| step.map(str::to_owned);
    Work::Batch(BatchSteps { clean: text(clean), build: text(build), exec: text(exec) })
}
