//! Sessions: what callers may do with them.

mod request;

use std::sync::Arc;

use bai_core::execution::{ExecuteReply, ExecuteRequest, FileEntry, KernelStats, UploadFile};
use bai_core::port::store::{Page, SessionEvent, SessionQuery};
use bai_core::{Error, ErrorKind, KernelId, Result, Session, SessionId};
use serde_json::{Map, Value};

use crate::identity::Scope;

pub use request::{CreateOutcome, CreateSession, DependencyNode, DestroyOutcome, SessionMatch, SessionServices};

/// The operations on sessions. A *reference* is a session id or an exact name among the owner's sessions.
///
/// Methods with a scope fail with `NotFound` when the owner has no such session.
#[derive(Debug, Clone)]
pub struct SessionService {}

fn not_yet<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "not yet"))
}

#[allow(unused_variables)]
impl SessionService {
    /// Enqueues a session, or finds the living one of that name, and waits for it to run unless told not to.
    ///
    /// # Errors
    /// As in spec rest-manager.md, section 2.2.
    pub async fn create(&self, scope: &Scope, request: CreateSession) -> Result<CreateOutcome> {
        not_yet()
    }

    /// The owner's session with this id or name. Dead ones are found with `stale_ok` only.
    ///
    /// # Errors
    /// `NotFound` ([`bai_core::error::code::SESSION_NOT_FOUND`], [`bai_core::error::code::TOO_MANY_SESSIONS`] with
    /// `data.matches`).
    pub async fn resolve(&self, scope: &Scope, reference: &str, stale_ok: bool) -> Result<Arc<Session>> {
        not_yet()
    }

    /// Sessions that match, of anybody: the caller restricts the query to what may be seen.
    ///
    /// # Errors
    /// `Invalid` for an unknown field in filter or order.
    pub async fn find(&self, query: &SessionQuery) -> Result<Page<Session>> {
        not_yet()
    }

    /// The session with this id, of anybody, dead ones included.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached.
    pub async fn get(&self, id: SessionId) -> Result<Option<Arc<Session>>> {
        not_yet()
    }

    /// Ends a session, and with `recursive` all that depend on it.
    ///
    /// # Errors
    /// `Forbidden` in statuses that need `forced` (spec session-lifecycle.md, section 4).
    pub async fn destroy(
        &self,
        scope: &Scope,
        reference: &str,
        forced: bool,
        recursive: bool,
    ) -> Result<Vec<DestroyOutcome>> {
        not_yet()
    }

    /// Restarts all kernels in place.
    ///
    /// # Errors
    /// `Invalid` when the session does not run.
    pub async fn restart(&self, scope: &Scope, reference: &str) -> Result<()> {
        not_yet()
    }

    /// Renames a running session.
    ///
    /// # Errors
    /// `Invalid` when it does not run or the name breaks the rule, `AlreadyExists` when the name is taken.
    pub async fn rename(&self, scope: &Scope, reference: &str, new_name: &str) -> Result<()> {
        not_yet()
    }

    /// One step of running code in the main kernel.
    ///
    /// # Errors
    /// `Invalid` when the session does not run, `Unavailable` when its agent fails (so for all that follow).
    pub async fn execute(&self, scope: &Scope, reference: &str, request: ExecuteRequest) -> Result<ExecuteReply> {
        not_yet()
    }

    /// Interrupts the run in progress.
    ///
    /// # Errors
    /// As [`SessionService::execute`].
    pub async fn interrupt(&self, scope: &Scope, reference: &str) -> Result<()> {
        not_yet()
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
        not_yet()
    }

    /// Writes files into the main kernel's home.
    ///
    /// # Errors
    /// As [`SessionService::execute`], and `Invalid` for paths that leave the home.
    pub async fn upload(&self, scope: &Scope, reference: &str, files: Vec<UploadFile>) -> Result<()> {
        not_yet()
    }

    /// A tar archive of a path in the main kernel's home.
    ///
    /// # Errors
    /// As [`SessionService::execute`], and `Invalid` for a missing, too large or foreign path.
    pub async fn download(&self, scope: &Scope, reference: &str, path: &str) -> Result<Vec<u8>> {
        not_yet()
    }

    /// The bytes of one file.
    ///
    /// # Errors
    /// As [`SessionService::download`].
    pub async fn download_single(&self, scope: &Scope, reference: &str, path: &str) -> Result<Vec<u8>> {
        not_yet()
    }

    /// The entries of a directory.
    ///
    /// # Errors
    /// As [`SessionService::download`].
    pub async fn list_files(&self, scope: &Scope, reference: &str, path: &str) -> Result<Vec<FileEntry>> {
        not_yet()
    }

    /// The console log of the main kernel; the kept one when the session is dead.
    ///
    /// # Errors
    /// `Unavailable` when the agent or the store fails.
    pub async fn logs(&self, scope: &Scope, reference: &str) -> Result<Vec<u8>> {
        not_yet()
    }

    /// The app services of the main kernel.
    ///
    /// # Errors
    /// `NotFound` only.
    pub async fn services(&self, scope: &Scope, reference: &str) -> Result<SessionServices> {
        not_yet()
    }

    /// What happened to the session, oldest first.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached.
    pub async fn history(&self, id: SessionId) -> Result<Vec<SessionEvent>> {
        not_yet()
    }

    /// The session with what it depends on, transitively.
    ///
    /// # Errors
    /// `NotFound` only.
    pub async fn dependency_graph(&self, scope: &Scope, reference: &str) -> Result<DependencyNode> {
        not_yet()
    }

    /// The newest ten sessions of the owner with exactly this id or name, dead ones included.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached.
    pub async fn matches(&self, scope: &Scope, reference: &str) -> Result<Vec<SessionMatch>> {
        not_yet()
    }

    /// The latest statistics of a living kernel.
    pub fn live_stats(&self, kernel: KernelId) -> Option<KernelStats> {
        None
    }

    /// How many snippets and batches this manager has run in the session.
    pub fn queries_executed(&self, session: SessionId) -> u64 {
        0
    }
}
