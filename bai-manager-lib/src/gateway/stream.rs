//! `GET /stream/session/{s}/execute`: a whole run over one WebSocket (spec session-lifecycle.md, section 12.1).
//!
//! ```text
//! client                          server
//!   │ {"mode","code","options"} ──► │
//!   │ ◄── {"status","console",…}    │ repeated: the server asks for the continuation by itself
//!   │ a line of input ────────────► │ after waiting-input
//!   │ ◄── {"status":"finished",…}   │ and the close frame
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::Uri;
use bai_core::error::code;
use bai_core::execution::{BatchOptions, ExecuteMode, ExecuteReply, ExecuteRequest, RunStatus};
use bai_core::{Error, ErrorKind};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};

use super::Gateway;
use super::auth::Auth;
use super::failure::{Failure, Reply};
use super::params::query_value;
use super::session::Reference;
use super::session::run::{ResultBody, batch_options};
use crate::identity::Scope;

/// Exit code reported when the kernel has gone away under a run.
const EXIT_VANISHED: i32 = 130;
/// Lines of input kept that come before the program asks for them.
const INPUT_AHEAD: usize = 64;
/// How long the last frames may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Opens the stream; what is wrong before that is an ordinary problem reply.
pub(super) async fn execute(
    State(gateway): State<Gateway>,
    auth: Auth,
    Reference(reference): Reference,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Reply {
    let scope = auth.scope(&gateway, query_value(&uri, "owner_access_key").as_deref()).await?;
    let session = gateway.manager().sessions().resolve(&scope, &reference, false).await?;
    let upgrade = upgrade.map_err(|error| Failure::of(code::BAD_REQUEST, error.to_string()))?;
    let limit = gateway.options().max_body;
    let run =
        Run { reference: session.id.to_string(), scope, gateway: gateway.clone(), typed: VecDeque::new() };
    let tracker = gateway.streams().clone();
    let upgrade = upgrade.max_message_size(limit).max_frame_size(limit);
    Ok(upgrade.on_upgrade(move |socket| tracker.track_future(run.serve(socket))))
}

/// One run and its client.
struct Run {
    gateway: Gateway,
    scope: Scope,
    reference: String,
    typed: VecDeque<String>,
}

/// Why a run's stream ends before the run does.
enum Stop {
    /// The client has gone.
    Gone,
    /// Tell the client and close.
    Tell(Value),
}

impl Run {
    async fn serve(mut self, mut socket: WebSocket) {
        let shutdown = self.gateway.options().shutdown.clone();
        let outcome = shutdown.run_until_cancelled(self.drive(&mut socket)).await;
        let last = match outcome {
            Some(Ok(())) => None,
            Some(Err(Stop::Gone)) => return self.interrupt().await,
            Some(Err(Stop::Tell(frame))) => Some(frame),
            None => Some(json!({ "status": "server-restarting", "msg": "The server is going down." })),
        };
        let farewell = async {
            if let Some(frame) = last {
                socket.send(text(&frame)).await?;
            }
            socket.close().await
        };
        if !matches!(tokio::time::timeout(FAREWELL, farewell).await, Ok(Ok(()))) {
            tracing::debug!("a client did not wait for the end of its stream");
        }
    }

    async fn drive(&mut self, socket: &mut WebSocket) -> Result<(), Stop> {
        let mut request = self.first_request(socket).await?;
        loop {
            let reply = self.step(socket, request).await?;
            let frame = text(&ResultBody { run_id: None, reply: &reply });
            socket.send(frame).await.map_err(|_| Stop::Gone)?;
            request = match reply.status {
                RunStatus::Finished | RunStatus::ExecTimeout => return Ok(()),
                RunStatus::WaitingInput => {
                    let line = self.next_line(socket).await?;
                    self.request(ExecuteMode::Input, line, Some(reply.run_id))
                }
                RunStatus::Continued | RunStatus::CleanFinished | RunStatus::BuildFinished => {
                    self.request(ExecuteMode::Continue, String::new(), Some(reply.run_id))
                }
            };
        }
    }

    async fn first_request(&self, socket: &mut WebSocket) -> Result<ExecuteRequest, Stop> {
        let refuse = |message: String| Stop::Tell(error_frame(&format!("Invalid API parameters: {message}")));
        let Some(frame) = next_text(socket).await else { return Err(Stop::Gone) };
        let values =
            serde_json::from_str::<Map<String, Value>>(&frame).map_err(|error| refuse(error.to_string()))?;
        let mode = match values.get("mode").and_then(Value::as_str) {
            Some("query") => ExecuteMode::Query,
            Some("batch") => ExecuteMode::Batch,
            _ => return Err(refuse("mode must be query or batch".into())),
        };
        let code = match values.get("code") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(code)) => code.clone(),
            Some(_) => return Err(refuse("code must be a text".into())),
        };
        let batch = match values.get("options") {
            None | Some(Value::Null) => BatchOptions::default(),
            Some(Value::Object(options)) => batch_options(options.clone()).map_err(refuse)?,
            Some(_) => return Err(refuse("options must be an object".into())),
        };
        Ok(ExecuteRequest { batch, ..self.request(mode, code, None) })
    }

    fn request(&self, mode: ExecuteMode, code: String, run_id: Option<String>) -> ExecuteRequest {
        let flush = self.gateway.options().stream_flush.as_millis();
        let flush_timeout_ms = flush.try_into().unwrap_or(u64::MAX);
        ExecuteRequest { run_id, mode, code, batch: BatchOptions::default(), flush_timeout_ms }
    }

    /// One step of the run, while listening to whether the client is still there.
    async fn step(&mut self, socket: &mut WebSocket, request: ExecuteRequest) -> Result<ExecuteReply, Stop> {
        let continued = request.run_id.clone();
        let step = self.gateway.manager().sessions().execute(&self.scope, &self.reference, request);
        let mut step = std::pin::pin!(step);
        loop {
            tokio::select! {
                biased;
                reply = step.as_mut() => return reply.or_else(|error| vanished(&error, continued)),
                line = next_text(socket) => match line {
                    None => return Err(Stop::Gone),
                    Some(line) if self.typed.len() < INPUT_AHEAD => self.typed.push_back(line),
                    Some(_) => return Err(Stop::Tell(error_frame("BackendError: too much input"))),
                },
            }
        }
    }

    async fn next_line(&mut self, socket: &mut WebSocket) -> Result<String, Stop> {
        match self.typed.pop_front() {
            Some(line) => Ok(line),
            None => next_text(socket).await.ok_or(Stop::Gone),
        }
    }

    async fn interrupt(&self) {
        let sessions = self.gateway.manager().sessions();
        if let Err(error) = sessions.interrupt(&self.scope, &self.reference).await {
            tracing::debug!(%error, session = self.reference, "a run without its client could not be interrupted");
        }
    }
}

/// A run whose session ended meanwhile is finished; other errors are told.
fn vanished(error: &Error, run_id: Option<String>) -> Result<ExecuteReply, Stop> {
    let session_ended = [code::SESSION_NOT_FOUND, code::SESSION_NOT_RUNNING, code::RUNNER_GONE];
    match run_id.filter(|_| session_ended.contains(&error.code())) {
        Some(run_id) => Ok(ExecuteReply {
            run_id,
            status: RunStatus::Finished,
            exit_code: Some(EXIT_VANISHED),
            options: Some(Map::new()),
            console: Vec::new(),
        }),
        None => Err(Stop::Tell(failure_frame(error))),
    }
}

/// The next text frame; `None` when the client has gone.
async fn next_text(socket: &mut WebSocket) -> Option<String> {
    loop {
        match socket.next().await? {
            Ok(Message::Text(text)) => return Some(text.to_string()),
            Ok(Message::Binary(bytes)) => return String::from_utf8(bytes.into()).ok(),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Close(_)) | Err(_) => return None,
        }
    }
}

fn text(frame: &impl serde::Serialize) -> Message {
    Message::text(serde_json::to_string(frame).unwrap_or_default())
}

fn error_frame(message: &str) -> Value {
    json!({ "status": "error", "msg": message })
}

fn failure_frame(error: &Error) -> Value {
    match error.kind() {
        ErrorKind::Invalid => error_frame(&format!("Invalid API parameters: {error}")),
        _ => error_frame(&format!("BackendError: {error}")),
    }
}
