//! Sessions: what callers may do with them.

mod admission;
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
mod waiting;

pub(crate) mod commit;
pub(crate) mod event;
pub(crate) mod failure;
pub(crate) mod registry;
pub(crate) mod spec;

use std::sync::Arc;

use bai_core::port::agent::KernelReport;
use bai_core::port::store::{Page, SessionEvent, SessionQuery};
use bai_core::{Kernel, Result, Session, SessionId};

use crate::idle::IdleChecks;
use crate::manager::core::Core;

pub use request::{
    CreateOutcome, CreateSession, DependencyNode, DestroyOutcome, SessionMatch, SessionServices,
};
pub use waiting::WaitingSession;

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

    /// What its agent last said about a living kernel, its latest statistics among it.
    pub fn last_report(&self, kernel: &Kernel) -> Option<Arc<KernelReport>> {
        let agent = kernel.agent.as_ref().filter(|_| !kernel.status.is_dead())?;
        self.core.agents.last_report(agent, kernel.id)
    }

    /// What the idle checkers say about a session; empty for one that does not run.
    pub fn idle_checks(&self, session: &Session) -> IdleChecks {
        if session.status.is_running() { self.core.idle.checks(session.id) } else { IdleChecks::new() }
    }

    /// How many snippets and batches this manager has run in the session since it lives.
    pub fn queries_executed(&self, session: SessionId) -> u64 {
        self.core.queries.lock().get(&session).copied().unwrap_or(0)
    }
}
