//! Input for user code: prompts of the interpreter and of scripts in batch mode.
//!
//! A Python script's `input()` is redirected by the site hook to a unix socket: it sends one JSON line
//! `{"is_password": false}` and reads the answer until the end of the stream. The executor takes such a request,
//! first passes on the prompt that was written before it, and only then tells the agent.

use std::{
    collections::VecDeque,
    fmt, fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use serde::Deserialize;

use super::supervise::lock;

/// Most scripts that ask at the same time; others are told that there is no input.
const MAX_ASKING: usize = 16;

const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const HEADER_BYTES: u64 = 256;

/// A script that asks.
#[derive(Debug)]
pub(super) struct Question {
    stream: UnixStream,
    pub(super) is_password: bool,
}

impl Question {
    /// Gives the answer. The script may be gone; that is its business.
    fn answer(mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes())
    }
}

type Answer = Box<dyn FnOnce(&str) -> io::Result<()> + Send>;

/// The prompt that is open, and those that wait.
pub(super) struct Input {
    pending: Mutex<Option<(String, Answer)>>,
    questions: Mutex<VecDeque<Question>>,
    event: EventFd,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("waiting", &self.is_waiting()).finish_non_exhaustive()
    }
}

impl Input {
    pub(super) fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { pending: Mutex::new(None), questions: Mutex::default(), event })
    }

    pub(super) fn is_waiting(&self) -> bool {
        lock(&self.pending).is_some()
    }

    /// Opens a prompt of `run_id`, replacing an older one.
    pub(super) fn expect(&self, run_id: &str, answer: impl FnOnce(&str) -> io::Result<()> + Send + 'static) {
        *lock(&self.pending) = Some((run_id.to_owned(), Box::new(answer)));
    }

    /// Answers the open prompt. `false` when there is none, or it belongs to another run.
    pub(super) fn answer(&self, run_id: Option<&str>, text: &str) -> bool {
        let mut pending = lock(&self.pending);
        let matches = pending.as_ref().is_some_and(|(id, _)| run_id.is_none_or(|wanted| wanted == id));
        let answer = if matches { pending.take() } else { None };
        drop(pending);
        let Some((_, answer)) = answer else { return false };
        let answered = answer(text).is_ok();
        // The next script in line may ask now.
        let _ = self.event.write(1);
        answered
    }

    /// No run is active: nobody waits, and scripts that ask are told that there is no input.
    pub(super) fn reset(&self) {
        let _ = self.event.read();
        *lock(&self.pending) = None;
        lock(&self.questions).clear();
    }

    /// The next script that asks, unless a prompt is open already.
    pub(super) fn next_question(&self) -> Option<Question> {
        let _ = self.event.read();
        if self.is_waiting() { None } else { lock(&self.questions).pop_front() }
    }

    /// Opens the prompt of a script.
    pub(super) fn expect_question(&self, run_id: &str, question: Question) {
        self.expect(run_id, move |text| question.answer(text));
    }

    /// Readable when [`Input::next_question`] may have one.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Binds the socket for scripts. Everybody in the kernel may ask.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Accepts scripts for ever.
pub(super) fn serve(listener: &UnixListener, input: &Arc<Input>, asking: &Arc<AtomicUsize>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        if asking.fetch_add(1, Ordering::Relaxed) >= MAX_ASKING {
            asking.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (input, counter) = (Arc::clone(input), Arc::clone(asking));
        let body = move || {
            if let Ok(question) = read_question(stream) {
                let mut questions = lock(&input.questions);
                if questions.len() < MAX_ASKING {
                    questions.push_back(question);
                }
                drop(questions);
                let _ = input.event.write(1);
            }
            counter.fetch_sub(1, Ordering::Relaxed);
        };
        if thread::Builder::new().name("question".into()).stack_size(128 << 10).spawn(body).is_err() {
            asking.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn read_question(stream: UnixStream) -> io::Result<Question> {
    #[derive(Deserialize)]
    struct Header {
        #[serde(default)]
        is_password: bool,
    }
    stream.set_read_timeout(Some(HEADER_TIMEOUT))?;
    stream.set_write_timeout(Some(HEADER_TIMEOUT))?;
    let mut line = Vec::new();
    BufReader::new((&stream).take(HEADER_BYTES)).read_until(b'\n', &mut line)?;
    let header: Header = serde_json::from_slice(&line)?;
    Ok(Question { stream, is_password: header.is_password })
}
