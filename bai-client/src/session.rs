//! Sessions: creating them, and everything a handle can do.

mod create;
mod files;

use bai_core::execution::{BatchOptions, ConsoleItem, RunStatus};
use bai_core::{Error, Result, error::code};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Client, Content};
use crate::run::{self, ExecuteReply, RunOutput, RunStep};

pub use create::{Created, NewSession};
pub use files::Upload;

/// A handle to one session, by name or id. Cheap to clone; holding it keeps nothing alive.
#[derive(Debug, Clone)]
pub struct Session {
    pub(crate) client: Client,
    pub(crate) reference: String,
}

#[derive(Deserialize)]
struct Wrapped<T> {
    result: T,
}

impl Session {
    /// Name or id it was addressed by.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Runs a snippet in the kept interpreter and collects all output.
    ///
    /// # Errors
    /// `Invalid` when the program asks for input (use [`Session::run_with`]); otherwise as [`Session::step`].
    pub async fn run(&self, code: &str) -> Result<RunOutput> {
        let mut console = Vec::new();
        let exit_code = self
            .run_with(
                code,
                |item| console.push(item),
                |_| {
                    Err(Error::of(
                        code::CLIENT_USAGE,
                        "the program asks for input, and nobody is there to answer",
                    ))
                },
            )
            .await?;
        Ok(RunOutput { console, exit_code })
    }

    /// Runs a snippet; output goes to `show` as it comes, and `ask` (told whether it is a password) answers `input()`.
    ///
    /// # Errors
    /// As [`Session::step`], and what `ask` returns: the run is interrupted then.
    pub async fn run_with(
        &self,
        code: &str,
        show: impl FnMut(ConsoleItem) + Send,
        ask: impl FnMut(bool) -> Result<String> + Send,
    ) -> Result<i32> {
        let first = run::request("query", None, code, &json!({}));
        self.drive(first, show, ask).await
    }

    /// Runs the steps of a batch: clean, build, exec.
    ///
    /// # Errors
    /// As [`Session::run_with`].
    pub async fn run_batch(
        &self,
        steps: &BatchOptions,
        show: impl FnMut(ConsoleItem) + Send,
        ask: impl FnMut(bool) -> Result<String> + Send,
    ) -> Result<i32> {
        let first = run::request("batch", None, "", &run::batch_options(steps));
        self.drive(first, show, ask).await
    }

    async fn drive(
        &self,
        first: Value,
        mut show: impl FnMut(ConsoleItem) + Send,
        mut ask: impl FnMut(bool) -> Result<String> + Send,
    ) -> Result<i32> {
        let mut step = self.step(first).await?;
        loop {
            step.console.drain(..).for_each(&mut show);
            let next = match step.status {
                RunStatus::Finished => return Ok(step.exit_code.unwrap_or(0)),
                RunStatus::ExecTimeout => {
                    return Err(Error::of(code::KERNEL_TIMEOUT, "the run took too long"));
                }
                RunStatus::WaitingInput => match ask(step.is_password) {
                    Ok(line) => run::request("input", Some(&step.run_id), &line, &json!({})),
                    Err(refused) => {
                        self.interrupt().await?;
                        return Err(refused);
                    }
                },
                _ => run::request("continue", Some(&step.run_id), "", &json!({})),
            };
            step = self.step(next).await?;
        }
    }

    /// One raw call of the execute state machine (`POST /session/{s}`).
    ///
    /// # Errors
    /// `NotFound` for an unknown session, `Unavailable` when its agent or kernel cannot be reached.
    pub async fn step(&self, request: Value) -> Result<RunStep> {
        self.client
            .json::<ExecuteReply>(Method::POST, &self.path(""), Content::json(&request))
            .await?
            .try_into()
    }

    /// Interrupts the run in progress, as Ctrl-C would.
    ///
    /// # Errors
    /// `NotFound` for an unknown session.
    pub async fn interrupt(&self) -> Result<()> {
        self.client.send(Method::POST, &self.path("/interrupt"), Content::empty()).await.map(drop)
    }

    /// Completions for `code`, with the cursor at its end.
    ///
    /// # Errors
    /// `NotFound` for an unknown session.
    pub async fn complete(&self, code: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Reply {
            completions: Vec<String>,
        }
        let row = code.matches('\n').count();
        let line = code.rsplit('\n').next().unwrap_or_default();
        let options = json!({ "row": row, "col": line.chars().count(), "line": line, "post": "" });
        let body = Content::json(&json!({ "code": code, "options": options }));
        let reply: Wrapped<Reply> = self.client.json(Method::POST, &self.path("/complete"), body).await?;
        Ok(reply.result.completions)
    }

    /// Details as `GET /session/{s}` gives them.
    ///
    /// # Errors
    /// `NotFound` for an unknown or dead session.
    pub async fn info(&self) -> Result<Value> {
        self.client.json(Method::GET, &self.path(""), Content::empty()).await
    }

    /// The console log of the main kernel, of a dead session too.
    ///
    /// # Errors
    /// `NotFound` for an unknown session.
    pub async fn logs(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Reply {
            logs: String,
        }
        let reply: Wrapped<Reply> =
            self.client.json(Method::GET, &self.path("/logs"), Content::empty()).await?;
        Ok(reply.result.logs)
    }

    /// When each status was entered.
    ///
    /// # Errors
    /// `NotFound` for an unknown session.
    pub async fn status_history(&self) -> Result<Value> {
        let reply: Wrapped<Value> =
            self.client.json(Method::GET, &self.path("/status-history"), Content::empty()).await?;
        Ok(reply.result)
    }

    /// Restarts the kernels in place: files stay, interpreters start anew.
    ///
    /// # Errors
    /// `NotFound` for an unknown session, `Conflict` for one that does not run.
    pub async fn restart(&self) -> Result<()> {
        self.client.send(Method::PATCH, &self.path(""), Content::empty()).await.map(drop)
    }

    /// Renames the session; the handle follows.
    ///
    /// # Errors
    /// `Invalid` when the name breaks the rules, `AlreadyExists` when it is taken.
    pub async fn rename(&mut self, name: &str) -> Result<()> {
        let target = self.path(&format!("/rename?name={}", encode(name)));
        self.client.send(Method::POST, &target, Content::empty()).await?;
        name.clone_into(&mut self.reference);
        Ok(())
    }

    /// Ends the session and returns its last statistics.
    ///
    /// # Errors
    /// `NotFound` for an unknown session, `Forbidden` while its status forbids it.
    pub async fn destroy(&self) -> Result<Value> {
        self.end(false).await
    }

    /// Ends the session whatever its status.
    ///
    /// # Errors
    /// `NotFound` for an unknown session.
    pub async fn destroy_forced(&self) -> Result<Value> {
        self.end(true).await
    }

    async fn end(&self, forced: bool) -> Result<Value> {
        #[derive(Deserialize)]
        struct Reply {
            stats: Value,
        }
        let target = self.path(if forced { "?forced=true" } else { "" });
        let reply: Reply = self.client.json(Method::DELETE, &target, Content::empty()).await?;
        Ok(reply.stats)
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/session/{}{rest}", encode(&self.reference))
    }
}

/// Percent-encodes everything but unreserved characters (RFC 3986, section 2.3).
pub(crate) fn encode(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}"); // writing to a String cannot fail
        }
        out
    })
}
