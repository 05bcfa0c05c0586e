use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use bai_core::Secret;
use bai_core::error::{Error, Result, code};
use bai_core::execution::{ExecuteReply, ExecuteRequest, FileEntry, UploadFile};
use bai_core::port::AgentApi;
use bai_core::port::agent::{KernelRef, KernelSpec};
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::client::Caller;
use crate::server;
use crate::wire::{AgentAnswer, AgentCall};

/// Deadline of calls that only leave a request.
const SHORT: Duration = Duration::from_secs(10);
/// Deadline of calls that carry files, and what an execute call gets beyond its flush timeout.
const LONG: Duration = Duration::from_secs(30);
const BEYOND_FLUSH: Duration = Duration::from_secs(10);

/// An agent in another process.
#[derive(Debug)]
pub struct RemoteAgent(Caller);

impl RemoteAgent {
    /// The agent at `addr` (`host:port`). The connection is made with the first call.
    ///
    /// # Errors
    /// `Invalid` when the address or the secret cannot be used.
    pub fn connect(addr: &str, secret: &Secret<String>) -> Result<Self> {
        Caller::new(addr, secret, code::AGENT_UNREACHABLE).map(Self)
    }

    async fn done(&self, call: AgentCall, deadline: Duration) -> Result<()> {
        match self.0.call(&call, deadline).await? {
            AgentAnswer::Done => Ok(()),
            _ => Err(unexpected()),
        }
    }

    async fn bytes(&self, call: AgentCall) -> Result<Vec<u8>> {
        match self.0.call(&call, LONG).await? {
            AgentAnswer::Bytes(bytes) => Ok(bytes),
            _ => Err(unexpected()),
        }
    }
}

#[async_trait]
impl AgentApi for RemoteAgent {
    async fn create_kernels(&self, specs: Vec<KernelSpec>) -> Result<()> {
        self.done(AgentCall::CreateKernels { specs }, SHORT).await
    }

    async fn destroy_kernel(&self, kernel: KernelRef, reason: &str) -> Result<()> {
        self.done(AgentCall::DestroyKernel { kernel, reason: reason.to_owned() }, SHORT).await
    }

    async fn forget(&self, kernel: KernelRef) -> Result<()> {
        self.done(AgentCall::Forget { kernel }, LONG).await
    }

    async fn start_batch(&self, kernel: KernelRef) -> Result<()> {
        self.done(AgentCall::StartBatch { kernel }, SHORT).await
    }

    async fn execute(&self, kernel: KernelRef, request: ExecuteRequest) -> Result<ExecuteReply> {
        let deadline = Duration::from_millis(request.flush_timeout_ms) + BEYOND_FLUSH;
        match self.0.call(&AgentCall::Execute { kernel, request }, deadline).await? {
            AgentAnswer::Executed(reply) => Ok(reply),
            _ => Err(unexpected()),
        }
    }

    async fn interrupt(&self, kernel: KernelRef) -> Result<()> {
        self.done(AgentCall::Interrupt { kernel }, LONG).await
    }

    async fn complete(
        &self,
        kernel: KernelRef,
        code: &str,
        options: &Map<String, Value>,
    ) -> Result<Vec<String>> {
        let call = AgentCall::Complete { kernel, code: code.to_owned(), options: options.clone() };
        match self.0.call(&call, LONG).await? {
            AgentAnswer::Names(names) => Ok(names),
            _ => Err(unexpected()),
        }
    }

    async fn logs(&self, kernel: KernelRef) -> Result<Vec<u8>> {
        self.bytes(AgentCall::Logs { kernel }).await
    }

    async fn upload(&self, kernel: KernelRef, files: Vec<UploadFile>) -> Result<()> {
        self.done(AgentCall::Upload { kernel, files }, LONG).await
    }

    async fn download(&self, kernel: KernelRef, path: &str) -> Result<Vec<u8>> {
        self.bytes(AgentCall::Download { kernel, path: path.to_owned() }).await
    }

    async fn download_single(&self, kernel: KernelRef, path: &str) -> Result<Vec<u8>> {
        self.bytes(AgentCall::DownloadSingle { kernel, path: path.to_owned() }).await
    }

    async fn list_files(&self, kernel: KernelRef, path: &str) -> Result<Vec<FileEntry>> {
        match self.0.call(&AgentCall::ListFiles { kernel, path: path.to_owned() }, LONG).await? {
            AgentAnswer::Files(files) => Ok(files),
            _ => Err(unexpected()),
        }
    }
}

/// The routes that an agent serves to its manager.
///
/// # Errors
/// `Invalid` when the secret is empty.
pub fn agent_router(agent: Arc<dyn AgentApi>, secret: Secret<String>) -> Result<Router> {
    server::router(secret, move |call| answer(Arc::clone(&agent), call))
}

/// Serves an agent to its manager until `shutdown`.
///
/// # Errors
/// `Unavailable` when the listener fails; `Invalid` when the secret is empty.
pub async fn serve_agent(
    agent: Arc<dyn AgentApi>,
    listener: TcpListener,
    secret: Secret<String>,
    shutdown: CancellationToken,
) -> Result<()> {
    server::serve(agent_router(agent, secret)?, listener, shutdown).await
}

async fn answer(agent: Arc<dyn AgentApi>, call: AgentCall) -> Result<AgentAnswer> {
    let done = |()| AgentAnswer::Done;
    match call {
        AgentCall::CreateKernels { specs } => agent.create_kernels(specs).await.map(done),
        AgentCall::DestroyKernel { kernel, reason } => agent.destroy_kernel(kernel, &reason).await.map(done),
        AgentCall::Forget { kernel } => agent.forget(kernel).await.map(done),
        AgentCall::StartBatch { kernel } => agent.start_batch(kernel).await.map(done),
        AgentCall::Execute { kernel, request } => {
            agent.execute(kernel, request).await.map(AgentAnswer::Executed)
        }
        AgentCall::Interrupt { kernel } => agent.interrupt(kernel).await.map(done),
        AgentCall::Complete { kernel, code, options } => {
            agent.complete(kernel, &code, &options).await.map(AgentAnswer::Names)
        }
        AgentCall::Logs { kernel } => agent.logs(kernel).await.map(AgentAnswer::Bytes),
        AgentCall::Upload { kernel, files } => agent.upload(kernel, files).await.map(done),
        AgentCall::Download { kernel, path } => agent.download(kernel, &path).await.map(AgentAnswer::Bytes),
        AgentCall::DownloadSingle { kernel, path } => {
            agent.download_single(kernel, &path).await.map(AgentAnswer::Bytes)
        }
        AgentCall::ListFiles { kernel, path } => {
            agent.list_files(kernel, &path).await.map(AgentAnswer::Files)
        }
    }
}

fn unexpected() -> Error {
    Error::of(code::BAD_REPLY, "the agent answered something else")
}
