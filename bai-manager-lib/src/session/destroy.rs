//! Ending sessions (spec session-lifecycle.md, section 4).

use std::collections::HashSet;
use std::sync::Arc;

use bai_core::error::code;
use bai_core::{Error, ErrorKind, Result, Session, SessionId, SessionStatus, Timestamp};
use futures_util::future::join_all;

use super::failure::{end_now, terminate};
use super::{DestroyOutcome, SessionService};
use crate::identity::Scope;

impl SessionService {
    /// Ends a session, and with `recursive` all that depend on it, whatever the status of each: those that cannot be ended
    /// now are left out. Waits a moment for the end, so that the statistics are final.
    ///
    /// # Errors
    /// `Forbidden` in statuses that need `forced`, and while images are being pulled.
    pub async fn destroy(
        &self,
        scope: &Scope,
        reference: &str,
        forced: bool,
        recursive: bool,
    ) -> Result<Vec<DestroyOutcome>> {
        let session = self.resolve(scope, reference, false).await?;
        if !recursive {
            let ending = self.begin_end(session.id, forced).await?;
            return Ok(vec![self.see_out(ending).await]);
        }
        let skipped = |error: &Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Forbidden);
        let mut ending = Vec::new();
        // Dependents first: the end of what they wait for would cancel them.
        for id in self.dependents_first(&session) {
            match self.begin_end(id, forced).await {
                Ok(session) => ending.push(session),
                Err(error) if skipped(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(join_all(ending.into_iter().rev().map(|session| self.see_out(session))).await)
    }

    /// The living sessions that depend on `session`, transitively, and last itself: each before what it depends on.
    fn dependents_first(&self, session: &Session) -> Vec<SessionId> {
        let same_owner = |other: &Arc<Session>| other.owner.access_key == session.owner.access_key;
        let others: Vec<_> = self.core.registry.all().into_iter().filter(same_owner).collect();
        let mut order = Vec::new();
        let mut seen = HashSet::new();
        let mut open = vec![(session.id, false)];
        while let Some((id, expanded)) = open.pop() {
            if expanded {
                order.push(id);
                continue;
            }
            if seen.insert(id) {
                open.push((id, true));
                let dependents = others.iter().filter(|other| other.spec.dependencies.contains(&id));
                open.extend(dependents.map(|other| (other.id, false)));
            }
        }
        order
    }

    async fn begin_end(&self, id: SessionId, forced: bool) -> Result<Arc<Session>> {
        self.core.update(id, |session, now| end(session, forced, now)).await
    }

    /// Waits a moment for the end.
    async fn see_out(&self, mut session: Arc<Session>) -> DestroyOutcome {
        let id = session.id;
        if !session.status.is_dead() {
            let end = self.settled(id, |_| false);
            if let Ok(Ok(Some(ended))) = tokio::time::timeout(self.core.options.destroy_wait, end).await {
                session = ended;
            }
        }
        let main = session.main();
        let live = || serde_json::to_value(self.last_report(main)?.stats.as_ref()?).ok();
        let status = if session.status == SessionStatus::Cancelled { "cancelled" } else { "terminated" };
        DestroyOutcome { id, status, stats: main.last_stat.clone().or_else(live) }
    }
}

fn end(session: &mut Session, forced: bool, now: Timestamp) -> Result<()> {
    let reason = if forced { "force-terminated" } else { "user-requested" };
    let forbidden = |status: &str| {
        let message = format!("Cannot destroy sessions in {status} status");
        Err(Error::of(code::SESSION_STATE_FORBIDS, message))
    };
    match session.status {
        SessionStatus::Pending => session.cancel(reason, now),
        SessionStatus::Pulling => forbidden("pulling"),
        SessionStatus::Scheduled
        | SessionStatus::Preparing
        | SessionStatus::Terminating
        | SessionStatus::Error => {
            if forced {
                end_now(session, reason, now)
            } else {
                forbidden("scheduled/preparing/terminating/error")
            }
        }
        SessionStatus::Running | SessionStatus::RunningDegraded | SessionStatus::Restarting => {
            terminate(session, reason, now)
        }
        SessionStatus::Terminated | SessionStatus::Cancelled => {
            Err(Error::of(code::SESSION_NOT_FOUND, "no such session").with("session", session.id))
        }
    }
}
