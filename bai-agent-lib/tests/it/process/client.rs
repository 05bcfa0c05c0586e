//! Speaks to a runner, one blocking call at a time.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bai_kernel_lib::protocol::{
    AgentFrame, Command, Event, Hello, MAX_FRAME, Request, RunnerFrame, VERSION, Work, read_frame,
};

const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// How a run ended, and everything it wrote.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) output: String,
    pub(super) exit_code: i32,
    pub(super) signal: Option<i32>,
}

#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    next: u64,
}

impl Client {
    /// Connects as soon as the socket is there.
    pub(super) fn connect(socket: &Path, token: &str) -> Self {
        let give_up = Instant::now() + Duration::from_secs(10);
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < give_up, "{}: {error}", socket.display()),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        let mut client =
            Self { stream, next: u64::from(std::process::id()) << 32 | u64::from(rand::random::<u32>()) };
        let hello = Hello { version: VERSION, token: token.into(), boot: None, last_seq: None };
        client.send(&AgentFrame::Hello(hello));
        client
    }

    fn send(&mut self, frame: &AgentFrame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    /// Runs `code` in the interpreter.
    pub(super) fn run(&mut self, code: &str) -> Ran {
        self.next += 1;
        let run = format!("run-{}", self.next);
        let work = Work::Query { code: code.into(), strict_exit: true };
        let command = Command::Execute { run_id: run.clone(), work };
        self.send(&AgentFrame::Request(Request { id: self.next, command }));
        let mut output = Vec::new();
        let mut body = Vec::new();
        loop {
            assert!(read_frame(&mut self.stream, MAX_FRAME, &mut body).unwrap(), "the runner hung up");
            let seq = match RunnerFrame::decode(&body).unwrap() {
                RunnerFrame::Event { seq, event: Event::Finished { run_id, exit_code, signal } }
                    if run_id == run =>
                {
                    self.send(&AgentFrame::Ack(seq));
                    return Ran { output: String::from_utf8_lossy(&output).into_owned(), exit_code, signal };
                }
                RunnerFrame::Event { seq, .. } => seq,
                RunnerFrame::Output { seq, data, .. } => {
                    output.extend_from_slice(data);
                    seq
                }
                _ => continue,
            };
            self.send(&AgentFrame::Ack(seq));
        }
    }

    /// Runs `code` that must succeed, and returns what it wrote without the last line end.
    pub(super) fn output(&mut self, code: &str) -> String {
        let ran = self.run(code);
        assert_eq!(ran.exit_code, 0, "{code}\n{ran:?}");
        ran.output.trim_end().to_owned()
    }
}
