use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest run id in bytes; a longer one is refused with [`ErrorCode::Invalid`].
pub const MAX_RUN_ID: usize = 128;

/// First frame of an agent on a new connection.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`](super::VERSION) of the agent.
    pub version: u32,
    /// The token of this kernel, from its [`RunnerConfig`](crate::config::RunnerConfig).
    pub token: String,
    /// The [`Welcome::boot`] that `last_seq` belongs to, when the agent has seen this runner before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// Number of the last frame that the agent has safely handled: an acknowledgement, valid for `boot` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<u64>,
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("version", &self.version)
            .field("boot", &self.boot)
            .field("last_seq", &self.last_seq)
            .finish_non_exhaustive()
    }
}

/// The runner's answer to a good [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Protocol version that the runner speaks.
    pub version: u32,
    /// Version of the runner, for logs.
    pub runner: String,
    /// The kernel it serves.
    pub kernel_id: String,
    /// Random name of this start of the runner. Frame numbers of another boot mean nothing here.
    pub boot: String,
    /// Number of the first frame that follows: everything before it was acknowledged.
    pub first_seq: u64,
}

/// A command with the number under which it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the agent, never used twice for one kernel (start at a random number).
    pub id: u64,
    /// What to do.
    pub command: Command,
}

/// What an agent asks of a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Queues a run. Runs are executed strictly one after another; a run id that is already known is
    /// answered `duplicate` and not run again.
    Execute {
        /// Name of the run, at most [`MAX_RUN_ID`] bytes.
        run_id: String,
        /// What the run does.
        work: Work,
    },
    /// Answers the pending [`Event::WaitingInput`].
    Input {
        /// The run that asked; `None` means whichever does.
        run_id: Option<String>,
        /// One line, without its end.
        text: String,
    },
    /// Sends SIGINT to the active run, or takes a queued run out of the queue (it finishes with 130).
    Interrupt {
        /// `None` means the active run.
        run_id: Option<String>,
    },
    /// Asks for completions of the code before a cursor, in the live namespace of the interpreter.
    Complete(Completion),
    /// Asks for the runner's [`Status`].
    Status,
    /// Ends the kernel: SIGTERM to every process, SIGKILL after the grace period, then the runner exits.
    Shutdown {
        /// Grace period in milliseconds; `None` means that of the configuration.
        grace_ms: Option<u64>,
    },
}

/// What a run does (`krunner.md` section 4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Runs source text in the language of the kernel; interpreters keep their state between runs.
    Query {
        /// The source text.
        code: String,
        /// Report 1 after an exception and `n` after `SystemExit(n)` instead of the documented 0 (K-11).
        #[serde(default)]
        strict_exit: bool,
    },
    /// Runs up to three shell commands in the work directory.
    Batch(BatchSteps),
}

/// The steps of a batch run. `None` or an empty text skips a step (it still reports 0), `*` means the
/// default of the language, anything else is run by the best shell of the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchSteps {
    /// Cleaning up the results of an earlier build.
    pub clean: Option<String>,
    /// Building; when it fails the exec step is not run and reports 127.
    pub build: Option<String>,
    /// The program.
    pub exec: Option<String>,
}

/// A request for completions (`complete` of the API).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Completion {
    /// The code typed so far.
    pub code: String,
    /// Text of the cursor's line up to the cursor; the last line of `code` when empty.
    pub line: String,
    /// Text after the cursor.
    pub post: String,
    /// Line of the cursor, from 0.
    pub row: u64,
    /// Column of the cursor, from 0.
    pub col: u64,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// [`Request::id`].
    pub id: u64,
    /// The answer.
    pub body: ReplyBody,
}

/// What a [`Reply`] says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplyBody {
    /// The run is queued, running or (when `duplicate`) perhaps already finished.
    Accepted {
        /// The run id was known before.
        duplicate: bool,
    },
    /// Done.
    Done,
    /// Suggestions, each a full replacement of the word before the cursor.
    Completions(Vec<String>),
    /// The state of the runner.
    Status(Status),
    /// Refused.
    Error {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people.
        message: String,
    },
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request makes no sense (an overlong run id).
    Invalid,
    /// Too many runs are queued; retry when one has finished.
    QueueFull,
    /// The run is not known, or nothing waits for input.
    NotFound,
    /// The kernel is being ended.
    ShuttingDown,
}

/// Something that happened. Events and output share one numbering, so their order is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The runner accepts commands. The first frame of every boot.
    Ready {
        /// Process id of the runner in its own namespace.
        pid: u32,
        /// Monotonic seconds at which it started.
        started_at: f64,
    },
    /// A run left the queue and is active now.
    Started {
        /// The run.
        run_id: String,
    },
    /// The active run asks for a line of input.
    WaitingInput {
        /// The run.
        run_id: String,
        /// The text should not be shown while it is typed.
        is_password: bool,
    },
    /// The clean step of a batch run ended. Everything it wrote came before.
    CleanFinished {
        /// The run.
        run_id: String,
        /// Its exit code; 128 + n after signal n.
        exit_code: i32,
    },
    /// The build step of a batch run ended.
    BuildFinished {
        /// The run.
        run_id: String,
        /// Its exit code; 128 + n after signal n.
        exit_code: i32,
    },
    /// A run ended. Everything it wrote came before.
    Finished {
        /// The run.
        run_id: String,
        /// Exit code; 128 + n after signal n, 127 when nothing could be run, negative for an error of the
        /// runner itself.
        exit_code: i32,
        /// The signal that ended its process. 9 together with a memory event of the cgroup means out of memory.
        signal: Option<i32>,
    },
    /// The interpreter of query mode ended; the next query starts a new one, with an empty state.
    InterpreterExited {
        /// As in [`Event::Finished`].
        exit_code: i32,
        /// As in [`Event::Finished`].
        signal: Option<i32>,
    },
}

/// What an output frame contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Stream {
    /// Raw bytes of standard output.
    Stdout = 1,
    /// Raw bytes of standard error.
    Stderr = 2,
    /// A media item: MIME type, a zero byte, data (text; binary types as a data URI). See [`media_parts`].
    Media = 3,
    /// An HTML fragment in UTF-8.
    Html = 4,
    /// A log record of the runner in UTF-8.
    Log = 5,
}

impl Stream {
    pub(super) fn from_u8(byte: u8) -> Option<Self> {
        [Self::Stdout, Self::Stderr, Self::Media, Self::Html, Self::Log]
            .into_iter()
            .find(|s| *s as u8 == byte)
    }
}

/// Splits the data of a [`Stream::Media`] frame into MIME type and data.
pub fn media_parts(data: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(data).ok()?.split_once('\0')
}

/// State of a runner (`status` of `krunner.md` section 3, widened).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Monotonic seconds at which the runner started.
    pub started_at: f64,
    /// State of the interpreter of query mode.
    pub interpreter: InterpreterState,
    /// The run being executed.
    pub active: Option<String>,
    /// Whether the active run waits for input.
    pub waiting_input: bool,
    /// Runs in the queue, first to run first.
    pub queued: Vec<String>,
    /// Finished runs that the runner still remembers (the newest few hundred), oldest first.
    pub finished: Vec<String>,
}

/// State of the long-lived interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterpreterState {
    /// The runtime has none, or it is not started.
    Absent,
    /// Started and not yet greeting.
    Starting,
    /// Waiting for code.
    Idle,
    /// Running code.
    Busy,
}
