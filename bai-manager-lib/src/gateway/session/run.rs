//! Running code: execute, interrupt, complete (spec session-lifecycle.md, section 5).

use axum::extract::State;
use bai_core::error::code;
use bai_core::execution::{BatchOptions, ConsoleItem, ExecuteMode, ExecuteReply, ExecuteRequest};
use serde::ser::{Serialize, SerializeSeq, Serializer};
use serde_json::{Map, Value, json};

use super::{Reference, Target};
use crate::gateway::auth::Auth;
use crate::gateway::failure::{Failure, Reply};
use crate::gateway::params::{Check, Params, kind};
use crate::gateway::{Gateway, reply};

/// `POST /session/{s}`: one step of the execute state machine.
pub(in crate::gateway) async fn execute(
    State(gateway): State<Gateway>,
    auth: Auth,
    Reference(reference): Reference,
    params: Params,
) -> Reply {
    let scope = auth.scope(&gateway, params.owner()).await?;
    let flush = gateway.options().execute_flush;
    let request = parse(params.check(), flush.as_millis().try_into().unwrap_or(u64::MAX))?;
    let outcome = gateway.manager().sessions().execute(&scope, &reference, request).await?;
    reply::ok(&Envelope { result: ResultBody { run_id: Some(&outcome.run_id), reply: &outcome } })
}

fn parse(mut check: Check, flush_timeout_ms: u64) -> Result<ExecuteRequest, Failure> {
    let invalid = |message: &str| Failure::of(code::INVALID_PARAMETERS, message);
    let (_, run_id) = check.take("runId").ok_or_else(|| invalid("runId is missing!"))?;
    let mode = match check.take("mode") {
        Some((_, Value::String(mode))) if !mode.is_empty() => mode,
        None | Some((_, Value::Null | Value::String(_))) => return Err(invalid("mode is missing or empty!")),
        Some(_) => return Err(invalid("mode has an invalid value.")),
    };
    let mode = exact_mode(&mode).ok_or_else(|| invalid("mode has an invalid value."))?;
    let run_id = match run_id {
        Value::Null => None,
        Value::String(run_id) => Some(run_id),
        _ => return Err(invalid("runId is not a string")),
    };
    if run_id.is_none() && matches!(mode, ExecuteMode::Continue | ExecuteMode::Input) {
        return Err(invalid("continuation requires explicit run ID"));
    }
    let code = check.optional("code", kind::text).unwrap_or_default();
    let options = check.optional("options", kind::object).unwrap_or_default();
    let batch =
        batch_options(options).map_err(|message| check.mistake("options", message)).unwrap_or_default();
    check.open();
    check.finish()?;
    Ok(ExecuteRequest { run_id, mode, code, batch, flush_timeout_ms })
}

fn exact_mode(text: &str) -> Option<ExecuteMode> {
    ExecuteMode::ALL.iter().copied().find(|mode| mode.as_str() == text)
}

/// The steps of a batch run; other options mean nothing here and are ignored.
pub(in crate::gateway) fn batch_options(options: Map<String, Value>) -> Result<BatchOptions, String> {
    serde_json::from_value(Value::Object(options)).map_err(|error| error.to_string())
}

/// `POST /session/{s}/interrupt`.
pub(in crate::gateway) async fn interrupt(State(gateway): State<Gateway>, target: Target) -> Reply {
    gateway.manager().sessions().interrupt(&target.scope, &target.reference).await?;
    Ok(reply::no_content())
}

/// `POST /session/{s}/complete`.
pub(in crate::gateway) async fn complete(
    State(gateway): State<Gateway>,
    auth: Auth,
    Reference(reference): Reference,
    params: Params,
) -> Reply {
    let scope = auth.scope(&gateway, params.owner()).await?;
    let mut check = params.check();
    let code = check.open().or("code", kind::text, String::new());
    let options = check.optional("options", kind::object).unwrap_or_default();
    check.finish()?;
    let completions = gateway.manager().sessions().complete(&scope, &reference, &code, &options).await?;
    reply::ok(&json!({ "result": { "status": "finished", "completions": completions } }))
}

#[derive(Debug, serde::Serialize)]
struct Envelope<'a> {
    result: ResultBody<'a>,
}

/// An execute reply on the wire; `files` is always empty, and `console` always a list.
#[derive(Debug)]
pub(in crate::gateway) struct ResultBody<'a> {
    /// Left out in streams.
    pub(in crate::gateway) run_id: Option<&'a str>,
    /// The rest.
    pub(in crate::gateway) reply: &'a ExecuteReply,
}

impl Serialize for ResultBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("status", &self.reply.status)?;
        if let Some(run_id) = self.run_id {
            map.serialize_entry("runId", run_id)?;
        }
        map.serialize_entry("exitCode", &self.reply.exit_code)?;
        map.serialize_entry("options", &self.reply.options)?;
        map.serialize_entry("files", &[(); 0])?;
        map.serialize_entry("console", &Console(&self.reply.console))?;
        map.end()
    }
}

/// Console items as pairs, written without copying: a program may print many megabytes.
struct Console<'a>(&'a [ConsoleItem]);

impl Serialize for Console<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for item in self.0 {
            match item {
                ConsoleItem::Stdout(text) => list.serialize_element(&("stdout", text))?,
                ConsoleItem::Stderr(text) => list.serialize_element(&("stderr", text))?,
                ConsoleItem::Media(mime, data) => list.serialize_element(&("media", (mime, data)))?,
                ConsoleItem::Html(text) => list.serialize_element(&("html", text))?,
                ConsoleItem::Log(text) => list.serialize_element(&("log", text))?,
            }
        }
        list.end()
    }
}
