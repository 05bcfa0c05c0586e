//! Restarting and renaming.

use bai_core::error::code;
use bai_core::status::SessionResult;
use bai_core::{Error, ErrorKind, KernelStatus, Result, Session, SessionStatus, Timestamp};

use super::{SessionService, lookup, name};
use crate::identity::Scope;

impl SessionService {
    /// Restarts all kernels in place and waits until they run again. A batch session runs its command again.
    ///
    /// # Errors
    /// `Invalid` when the session does not run, `Unavailable` ([`code::KERNEL_RESTART`]) when it ends instead.
    pub async fn restart(&self, scope: &Scope, reference: &str) -> Result<()> {
        let session = self.resolve(scope, reference, false).await?;
        let id = session.id;
        self.core.update(id, restart).await?;
        let deadline = self.core.options.restarting_timeout;
        let done = self.settled(id, |session| session.status != SessionStatus::Restarting);
        let failed = || Error::of(code::KERNEL_RESTART, "the session did not come back").with("session", id);
        match tokio::time::timeout(deadline, done).await {
            Ok(settled) => settled?.filter(|session| has_come_back(session)).map(|_| ()).ok_or_else(failed),
            Err(_) => Err(failed()),
        }
    }

    /// Renames a running session.
    ///
    /// # Errors
    /// `Invalid` when it does not run or the name breaks the rule, `AlreadyExists` when the name is taken.
    pub async fn rename(&self, scope: &Scope, reference: &str, new_name: &str) -> Result<()> {
        name::check(new_name)?;
        let session = self.resolve(scope, reference, true).await?;
        let taken =
            || Error::new(ErrorKind::AlreadyExists, "another session has this name").with("name", new_name);
        let other = lookup::living(&self.core, &session.owner.access_key, new_name).await?;
        if other.is_some_and(|other| other.id != session.id) {
            return Err(taken());
        }
        let rename = |session: &mut Session, _: Timestamp| {
            if session.status != SessionStatus::Running {
                return Err(not_running(session, "Can't change name of not running session"));
            }
            new_name.clone_into(&mut session.name);
            Ok(())
        };
        match self.core.update(session.id, rename).await {
            Err(error) if error.code() == code::SESSION_MOVED_ON => Err(taken()),
            result => result.map(|_| ()),
        }
    }
}

fn restart(session: &mut Session, now: Timestamp) -> Result<()> {
    if !session.status.is_running() {
        return Err(not_running(session, "only running sessions can be restarted"));
    }
    session.result = SessionResult::Undefined;
    session.status_data.shift_remove("batch");
    session.advance_all(SessionStatus::Restarting, KernelStatus::Restarting, "restarting", now)?;
    for kernel in session.kernels.iter_mut().filter(|kernel| kernel.status == KernelStatus::Restarting) {
        kernel.generation += 1;
        kernel.exit_code = None;
    }
    Ok(())
}

/// Whether the session has run since its last restart; it may have ended again, as short batch sessions do.
fn has_come_back(session: &Session) -> bool {
    let last = |status: SessionStatus| session.status_history.get_index_of(status.as_str());
    last(SessionStatus::Running).max(last(SessionStatus::RunningDegraded)) > last(SessionStatus::Restarting)
}

/// The refusal of something that needs a running session.
pub(super) fn not_running(session: &Session, message: &str) -> Error {
    Error::of(code::SESSION_NOT_RUNNING, message).with("session", session.id).with("status", session.status)
}
