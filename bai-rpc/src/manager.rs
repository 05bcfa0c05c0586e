use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use bai_core::Secret;
use bai_core::error::{Result, code};
use bai_core::port::ManagerApi;
use bai_core::port::agent::{AgentReport, ReportReply};

use crate::client::Caller;
use crate::server;
use crate::wire::{ManagerAnswer, ManagerCall};

/// Deadline of a report.
const REPORT: Duration = Duration::from_secs(10);

/// A manager in another process.
#[derive(Debug)]
pub struct RemoteManager(Caller);

impl RemoteManager {
    /// The manager at `addr` (`host:port`). The connection is made with the first report.
    ///
    /// # Errors
    /// `Invalid` when the address or the secret cannot be used.
    pub fn connect(addr: &str, secret: &Secret<String>) -> Result<Self> {
        Caller::new(addr, secret, code::UNAVAILABLE).map(Self)
    }
}

#[async_trait]
impl ManagerApi for RemoteManager {
    async fn report(&self, report: AgentReport) -> Result<ReportReply> {
        let ManagerAnswer::Reported(reply) =
            self.0.call(&ManagerCall::Report(Box::new(report)), REPORT).await?;
        Ok(reply)
    }
}

/// The routes that a manager serves to its agents: merge them into its internal listener.
///
/// # Errors
/// `Invalid` when the secret is empty.
pub fn manager_router(manager: Arc<dyn ManagerApi>, secret: Secret<String>) -> Result<Router> {
    server::router(secret, move |call| {
        let manager = Arc::clone(&manager);
        async move {
            let ManagerCall::Report(report) = call;
            manager.report(*report).await.map(ManagerAnswer::Reported)
        }
    })
}
