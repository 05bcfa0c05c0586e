//! Running code in a kernel: requests, console items and replies (spec session-lifecycle.md, section 5).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::status::named_enum;

named_enum! {
    /// What an execute call asks for.
    ExecuteMode {
        /// Run a snippet in the kept interpreter.
        Query = "query",
        /// Run the clean, build and exec steps.
        Batch = "batch",
        /// Answer a pending `input()`.
        Input = "input",
        /// Go on collecting the output of a run.
        Continue = "continue",
    }
}

named_enum! {
    /// State of a run after an execute call.
    RunStatus {
        /// More will come: call again with mode `continue`.
        Continued = "continued",
        /// The clean step ended.
        CleanFinished = "clean-finished",
        /// The build step ended.
        BuildFinished = "build-finished",
        /// The program waits for a line of input.
        WaitingInput = "waiting-input",
        /// The run ended.
        Finished = "finished",
        /// The run took too long and was ended.
        ExecTimeout = "exec-timeout",
    }
}

/// The steps of a batch run. `None` skips a step, `*` is the runtime's default, anything else is a shell command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchOptions {
    /// Clean step.
    pub clean: Option<String>,
    /// Build step.
    pub build: Option<String>,
    /// Whether the output of the build is shown.
    #[serde(rename = "buildLog")]
    pub build_log: bool,
    /// Exec step.
    pub exec: Option<String>,
}

/// One call of the execute state machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecuteRequest {
    /// Identity of the run; chosen by the agent when the first call has none.
    pub run_id: Option<String>,
    /// What to do.
    pub mode: ExecuteMode,
    /// Source text, or the input line.
    pub code: String,
    /// Steps of a batch run.
    pub batch: BatchOptions,
    /// Return with what there is after this many milliseconds.
    pub flush_timeout_ms: u64,
}

/// A piece of output, in the order it was produced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "lowercase")]
pub enum ConsoleItem {
    /// Standard output.
    Stdout(String),
    /// Standard error.
    Stderr(String),
    /// MIME type and data: a data URI for bitmaps, text for SVG.
    Media(String, String),
    /// HTML text.
    Html(String),
    /// A JSON text from the runner.
    Log(String),
}

impl ConsoleItem {
    /// The pair `[type, data]` of the API.
    pub fn to_pair(&self) -> Value {
        match self {
            Self::Stdout(text) => Value::from(vec!["stdout", text]),
            Self::Stderr(text) => Value::from(vec!["stderr", text]),
            Self::Media(mime, data) => {
                Value::from(vec![Value::from("media"), Value::from(vec![mime.as_str(), data])])
            }
            Self::Html(text) => Value::from(vec!["html", text]),
            Self::Log(text) => Value::from(vec!["log", text]),
        }
    }
}

/// What an execute call returns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecuteReply {
    /// Identity of the run, for the calls that follow.
    pub run_id: String,
    /// State of the run.
    pub status: RunStatus,
    /// Exit code of the step that ended, when one did.
    pub exit_code: Option<i32>,
    /// `is_password` while waiting for input.
    pub options: Option<Map<String, Value>>,
    /// Output since the last call.
    pub console: Vec<ConsoleItem>,
}

/// A file to write into a kernel's home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadFile {
    /// Path below the home directory.
    pub path: String,
    /// Content.
    #[serde(with = "serde_bytes")]
    pub content: Vec<u8>,
}

/// An entry of a directory listing (spec session-lifecycle.md, section 8).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Type and permissions like `-rw-r--r--`.
    pub mode: String,
    /// Size in bytes.
    pub size: u64,
    /// Seconds since the epoch of the last status change.
    pub ctime: f64,
    /// Seconds since the epoch of the last modification.
    pub mtime: f64,
    /// Seconds since the epoch of the last access.
    pub atime: f64,
    /// Name without directory.
    pub filename: String,
}

/// Statistics of a kernel: metric name to its values as decimal texts (spec agent.md, section 12).
pub type KernelStats = BTreeMap<String, Value>;
