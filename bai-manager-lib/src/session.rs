//! Sessions: what callers may do with them.

mod cluster;
mod create;
mod dependency;
mod destroy;
mod draft;
mod execution;
mod lookup;
mod modify;
mod name;
mod request;
mod resources;

pub(crate) mod commit;
pub(crate) mod event;
pub(crate) mod failure;
pub(crate) mod registry;
pub(crate) mod spec;

use std::sync::Arc;

use bai_core::execution::KernelStats;
use bai_core::port::store::{Page, SessionEvent, SessionQuery};
use bai_core::{KernelId, Result, Session, SessionId};

use crate::manager::core::Core;

pub use request::{
    CreateOutcome, CreateSession, DependencyNode, DestroyOutcome, SessionMatch, SessionServices,
};

/// The operations on sessions. A *reference* is a session id or an exact name among the owner's sessions.
///
/// Methods with a scope fail with `NotFound` when the owner has no such session.
#[derive(Debug, Clone)]
pub struct SessionService {
    core: Arc<Core>,
}

impl SessionService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Sessions that match, of anybody: the caller restricts the query to what may be seen.
    ///
    /// # Errors
    /// `Invalid` for an unknown field in filter or order.
    pub async fn find(&self, query: &SessionQuery) -> Result<Page<Session>> {
        self.core.backends.sessions.find(query).await
    }

    /// The session with this id, of anybody, dead ones included.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached.
    pub async fn get(&self, id: SessionId) -> Result<Option<Arc<Session>>> {
        self.core.load(id).await
    }

    /// What happened to the session, oldest first.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached.
    pub async fn history(&self, id: SessionId) -> Result<Vec<SessionEvent>> {
        self.core.backends.sessions.history(id).await
    }

    /// The latest statistics of a living kernel.
    pub fn live_stats(&self, kernel: KernelId) -> Option<KernelStats> {
        let session = self.core.registry.by_kernel(kernel)?;
        let agent = session.kernel(kernel)?.agent.clone()?;
        self.core.agents.kernel_stats(&agent, kernel)
    }

    /// How many snippets and batches this manager has run in the session since it lives.
    pub fn queries_executed(&self, session: SessionId) -> u64 {
        self.core.queries.lock().get(&session).copied().unwrap_or(0)
    }
}
