//! Code, files and logs: calls that go through to the agent of the main kernel.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bai_core::error::code;
use bai_core::execution::{ExecuteMode, ExecuteReply, ExecuteRequest, FileEntry, RunStatus, UploadFile};
use bai_core::port::AgentApi;
use bai_core::port::agent::KernelRef;
use bai_core::{AgentId, Error, ErrorKind, KernelStatus, Result, Session};
use serde_json::{Map, Value};

use super::modify::not_running;
use super::registry::kernel_ref;
use super::{SessionService, SessionServices};
use crate::identity::Scope;

/// Exit code of a run whose kernel has gone.
const KERNEL_GONE: i32 = 130;

impl SessionService {
    /// One step of running code in the main kernel.
    ///
    /// # Errors
    /// `Invalid` when the session does not run, `Unavailable` or `Timeout` when its agent fails (so for all that follow).
    pub async fn execute(
        &self,
        scope: &Scope,
        reference: &str,
        request: ExecuteRequest,
    ) -> Result<ExecuteReply> {
        let session = self.running(scope, reference).await?;
        if matches!(request.mode, ExecuteMode::Query | ExecuteMode::Batch) {
            *self.core.queries.lock().entry(session.id).or_default() += 1;
        }
        let run_id = request.run_id.clone();
        let patience = Duration::from_millis(request.flush_timeout_ms);
        let call = |api: Arc<dyn AgentApi>, kernel| async move { api.execute(kernel, request).await };
        match self.on_main(&session, patience, call).await {
            Err(error) if error.code() == code::KERNEL_NOT_FOUND => Ok(gone(run_id)),
            result => result,
        }
    }

    /// Interrupts the run in progress.
    ///
    /// # Errors
    /// As [`SessionService::execute`].
    pub async fn interrupt(&self, scope: &Scope, reference: &str) -> Result<()> {
        let session = self.running(scope, reference).await?;
        self.on_main(&session, Duration::ZERO, |api, kernel| async move { api.interrupt(kernel).await }).await
    }

    /// Completions for `code`.
    ///
    /// # Errors
    /// As [`SessionService::execute`].
    pub async fn complete(
        &self,
        scope: &Scope,
        reference: &str,
        code: &str,
        options: &Map<String, Value>,
    ) -> Result<Vec<String>> {
        let session = self.running(scope, reference).await?;
        let call = |api: Arc<dyn AgentApi>, kernel| async move { api.complete(kernel, code, options).await };
        self.on_main(&session, Duration::ZERO, call).await
    }

    /// Writes files into the main kernel's home.
    ///
    /// # Errors
    /// As [`SessionService::execute`], and `Invalid` for paths that leave the home.
    pub async fn upload(&self, scope: &Scope, reference: &str, files: Vec<UploadFile>) -> Result<()> {
        let session = self.running(scope, reference).await?;
        self.on_main(&session, Duration::ZERO, |api, kernel| async move { api.upload(kernel, files).await })
            .await
    }

    /// A tar archive of a path in the main kernel's home.
    ///
    /// # Errors
    /// As [`SessionService::execute`], and `Invalid` for a missing, too large or foreign path.
    pub async fn download(&self, scope: &Scope, reference: &str, path: &str) -> Result<Vec<u8>> {
        let session = self.running(scope, reference).await?;
        self.on_main(&session, Duration::ZERO, |api, kernel| async move { api.download(kernel, path).await })
            .await
    }

    /// The bytes of one file.
    ///
    /// # Errors
    /// As [`SessionService::download`].
    pub async fn download_single(&self, scope: &Scope, reference: &str, path: &str) -> Result<Vec<u8>> {
        let session = self.running(scope, reference).await?;
        let call = |api: Arc<dyn AgentApi>, kernel| async move { api.download_single(kernel, path).await };
        self.on_main(&session, Duration::ZERO, call).await
    }

    /// The entries of a directory.
    ///
    /// # Errors
    /// As [`SessionService::download`].
    pub async fn list_files(&self, scope: &Scope, reference: &str, path: &str) -> Result<Vec<FileEntry>> {
        let session = self.running(scope, reference).await?;
        self.on_main(
            &session,
            Duration::ZERO,
            |api, kernel| async move { api.list_files(kernel, path).await },
        )
        .await
    }

    /// The console log of the main kernel; the kept one when the kernel is dead, empty when it has not started.
    ///
    /// # Errors
    /// `Unavailable` when the agent or the store fails.
    pub async fn logs(&self, scope: &Scope, reference: &str) -> Result<Vec<u8>> {
        let session = self.resolve(scope, reference, true).await?;
        let main = session.main();
        if main.status.is_dead() {
            return Ok(self.core.backends.logs.log(main.id).await?.unwrap_or_default());
        }
        let started = !matches!(main.status, KernelStatus::Pending | KernelStatus::Scheduled);
        if !started {
            return Ok(Vec::new());
        }
        let call = |api: Arc<dyn AgentApi>, kernel| async move { api.logs(kernel).await };
        match self.on_main(&session, Duration::ZERO, call).await {
            // Ended, collected and forgotten since the session was looked up, or not there yet.
            Err(error) if error.code() == code::KERNEL_NOT_FOUND => {
                Ok(self.core.backends.logs.log(main.id).await?.unwrap_or_default())
            }
            result => result,
        }
    }

    /// The app services of the main kernel.
    ///
    /// # Errors
    /// `NotFound` only.
    pub async fn services(&self, scope: &Scope, reference: &str) -> Result<SessionServices> {
        let session = self.resolve(scope, reference, false).await?;
        let main = session.main();
        Ok(SessionServices { kernel: main.id, ports: main.service_ports.clone() })
    }

    async fn running(&self, scope: &Scope, reference: &str) -> Result<Arc<Session>> {
        let session = self.resolve(scope, reference, false).await?;
        if session.status.is_running() {
            Ok(session)
        } else {
            Err(not_running(&session, "the session is not running"))
        }
    }

    /// One call about the main kernel under a deadline of `patience` and what a command may take.
    async fn on_main<T, F: Future<Output = Result<T>>>(
        &self,
        session: &Session,
        patience: Duration,
        call: impl FnOnce(Arc<dyn AgentApi>, KernelRef) -> F,
    ) -> Result<T> {
        let main = session.main();
        let agent = main.agent.as_ref().ok_or_else(|| not_running(session, "the session has no agent"))?;
        let work = async { call(self.core.agents.api(agent).await?, kernel_ref(main)).await };
        match tokio::time::timeout(patience + self.core.options.agent_deadline, work).await {
            Ok(result) => result.map_err(|error| unreachable(error, agent)),
            Err(_) => {
                Err(Error::of(code::KERNEL_TIMEOUT, "the agent did not answer in time").with("agent", agent))
            }
        }
    }
}

/// A failure of the connection as one of the agent; errors the agent itself reports stay as they are.
fn unreachable(error: Error, agent: &AgentId) -> Error {
    let general = [code::UNAVAILABLE, code::AGENT_NOT_FOUND, code::CONNECT_FAILED].contains(&error.code());
    if general && error.kind() != ErrorKind::Timeout {
        let message = format!("the agent cannot be reached: {error}");
        return Error::of(code::AGENT_UNREACHABLE, message).with("agent", agent).source(error);
    }
    error
}

/// The reply for a run whose kernel has gone: clients stop at it.
fn gone(run_id: Option<String>) -> ExecuteReply {
    ExecuteReply {
        run_id: run_id.unwrap_or_default(),
        status: RunStatus::Finished,
        exit_code: Some(KERNEL_GONE),
        options: Some(Map::new()),
        console: Vec::new(),
    }
}
