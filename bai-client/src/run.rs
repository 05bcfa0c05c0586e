//! Running code and collecting what it says.

use bai_core::execution::{BatchOptions, ConsoleItem, RunStatus};
use bai_core::{Error, Result, error::code};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// One reply of the execute state machine.
#[derive(Debug, Clone)]
pub struct RunStep {
    /// Identity of the run.
    pub run_id: String,
    /// State of the run.
    pub status: RunStatus,
    /// Exit code of the step that ended.
    pub exit_code: Option<i32>,
    /// Whether the line of input that is waited for is a password.
    pub is_password: bool,
    /// Output since the step before.
    pub console: Vec<ConsoleItem>,
}

/// Everything a run said, and how it ended.
#[derive(Debug, Clone, Default)]
pub struct RunOutput {
    /// Console items in order.
    pub console: Vec<ConsoleItem>,
    /// Exit code.
    pub exit_code: i32,
}

impl RunOutput {
    /// All standard output.
    pub fn stdout(&self) -> String {
        self.text(|item| if let ConsoleItem::Stdout(text) = item { Some(text) } else { None })
    }

    /// All standard error.
    pub fn stderr(&self) -> String {
        self.text(|item| if let ConsoleItem::Stderr(text) = item { Some(text) } else { None })
    }

    fn text(&self, pick: impl Fn(&ConsoleItem) -> Option<&String>) -> String {
        self.console.iter().filter_map(pick).map(String::as_str).collect()
    }
}

/// The body of an execute request.
pub(crate) fn request(mode: &str, run_id: Option<&str>, code: &str, options: &Value) -> Value {
    json!({ "mode": mode, "runId": run_id, "code": code, "options": options })
}

/// Batch steps as the API spells them.
pub(crate) fn batch_options(steps: &BatchOptions) -> Value {
    json!({ "clean": steps.clean, "build": steps.build, "buildLog": steps.build_log, "exec": steps.exec })
}

#[derive(Debug, Deserialize)]
pub(crate) struct ExecuteReply {
    result: WireResult,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireResult {
    status: RunStatus,
    run_id: String,
    exit_code: Option<i32>,
    options: Option<Map<String, Value>>,
    #[serde(default)]
    console: Vec<(String, Value)>,
}

impl TryFrom<ExecuteReply> for RunStep {
    type Error = Error;

    fn try_from(reply: ExecuteReply) -> Result<Self> {
        let wire = reply.result;
        let is_password =
            wire.options.as_ref().and_then(|options| options.get("is_password")).and_then(Value::as_bool);
        Ok(Self {
            run_id: wire.run_id,
            status: wire.status,
            exit_code: wire.exit_code,
            is_password: is_password.unwrap_or(false),
            console: wire
                .console
                .into_iter()
                .map(|(kind, data)| console_item(&kind, data))
                .collect::<Result<_>>()?,
        })
    }
}

fn console_item(kind: &str, data: Value) -> Result<ConsoleItem> {
    match (kind, data) {
        ("stdout", Value::String(text)) => Ok(ConsoleItem::Stdout(text)),
        ("stderr", Value::String(text)) => Ok(ConsoleItem::Stderr(text)),
        ("html", Value::String(text)) => Ok(ConsoleItem::Html(text)),
        ("log", Value::String(text)) => Ok(ConsoleItem::Log(text)),
        ("media", Value::Array(pair)) => match <[Value; 2]>::try_from(pair) {
            Ok([Value::String(mime), Value::String(data)]) => Ok(ConsoleItem::Media(mime, data)),
            _ => Err(Error::of(code::BAD_REPLY, "a media item is not a pair of texts")),
        },
        (other, data) => Ok(ConsoleItem::Log(format!("{other}: {data}"))),
    }
}
