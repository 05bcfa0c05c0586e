//! The queue: who waits, for what, and how long.

use std::sync::Arc;

use bai_core::error::code;
use bai_core::{Error, Result, Session, SessionStatus};
use bai_scheduler::Unplaced;
use bai_scheduler::explain::Explanation;

use super::SessionService;
use crate::identity::Scope;
use crate::reconcile::schedule;

/// A session that waits.
#[derive(Debug, Clone)]
pub struct WaitingSession {
    /// The session.
    pub session: Arc<Session>,
    /// How many sessions of its resource group are before it; `None` for one that is not in line yet, because it waits for a
    /// time or for other sessions.
    pub position: Option<u32>,
    /// What is in its way.
    pub explanation: Arc<Explanation>,
}

impl SessionService {
    /// Why a session waits; `None` when it does not.
    ///
    /// # Errors
    /// `NotFound` when the owner has no such session.
    pub async fn explain(
        &self,
        scope: &Scope,
        reference: &str,
    ) -> Result<(Arc<Session>, Option<WaitingSession>)> {
        let session = self.resolve(scope, reference, true).await?;
        if session.status != SessionStatus::Pending {
            return Ok((session, None));
        }
        let id = session.id;
        let found = schedule::look(&self.core, &session.resource_group, |group| group.explain(id)).await?;
        let waiting = found.map(|Unplaced { position, explanation, .. }| WaitingSession {
            session: session.clone(),
            position,
            explanation,
        });
        Ok((session, waiting))
    }

    /// The sessions that wait, those of one resource group or of all; in each group those in line first, in their order. The
    /// positions count everybody's sessions; only a superadmin sees those of others.
    ///
    /// # Errors
    /// `NotFound` ([`code::RESOURCE_GROUP_NOT_FOUND`]) for an unknown group, `Unavailable` when a back end cannot be reached.
    pub async fn queue(&self, scope: &Scope, group: Option<&str>) -> Result<Vec<WaitingSession>> {
        if let Some(name) = group
            && !self.core.identities.directory().await?.resource_groups.contains_key(name)
        {
            let message = "no such resource group";
            return Err(Error::of(code::RESOURCE_GROUP_NOT_FOUND, message).with("resource_group", name));
        }
        let mut groups = self.core.registry.queued_groups();
        groups.retain(|name| group.is_none_or(|group| group == name));
        groups.sort_unstable();
        let mut queue = Vec::new();
        for name in groups {
            for Unplaced { session, position, explanation } in
                schedule::look(&self.core, &name, crate::scheduling::HotGroup::waiting).await?
            {
                let visible = |session: &Arc<Session>| {
                    scope.requester.is_superadmin()
                        || session.owner.access_key == scope.owner.keypair.access_key
                };
                if let Some(session) = self.core.registry.get(session).filter(visible) {
                    queue.push(WaitingSession { session, position, explanation });
                }
            }
        }
        Ok(queue)
    }
}
