//! Creating sessions, and waiting for them to run.

use std::sync::Arc;

use bai_core::error::code;
use bai_core::image::Image;
use bai_core::port::store::SessionChange;
use bai_core::{Error, Result, Session, SessionId};
use serde_json::json;

use super::admission::PendingLimits;
use super::draft::{draft, registry_of};
use super::event::events_of;
use super::{CreateOutcome, CreateSession, SessionService, lookup, name};
use crate::identity::Scope;
use crate::image;

impl SessionService {
    /// Enqueues a session, or finds the living one of that name, and waits for it to run unless told not to. Dropping the
    /// future ends the wait, not the session.
    ///
    /// # Errors
    /// As in spec rest-manager.md, section 2.2.
    pub async fn create(&self, scope: &Scope, request: CreateSession) -> Result<CreateOutcome> {
        name::check(&request.name)?;
        let image = self.allowed_image(&request).await?;
        let owner = &scope.owner.keypair.access_key;
        if let Some(existing) = lookup::remembered(&self.core, owner, &request.name).await? {
            return reuse(existing, &request, &image);
        }
        match self.draft_and_enqueue(scope, &request, &image).await {
            Ok(session) => self.wait_for_start(session, &request).await,
            // Perhaps there is one after all: another manager's, or somebody was faster with the same name.
            Err(error) => match lookup::living(&self.core, owner, &request.name).await? {
                Some(existing) => reuse(existing, &request, &image),
                None => Err(error),
            },
        }
    }

    async fn draft_and_enqueue(
        &self,
        scope: &Scope,
        request: &CreateSession,
        image: &Image,
    ) -> Result<Arc<Session>> {
        let session = draft(&self.core, scope, request, image).await?;
        self.enqueue(scope, session).await
    }

    async fn enqueue(&self, scope: &Scope, session: Session) -> Result<Arc<Session>> {
        let limits = PendingLimits::of(&scope.owner.policy, &self.core.agents.slot_types());
        let _admitted = self.core.registry.admit(&session, &limits)?;
        let change = SessionChange { events: events_of(None, &session), session, guard_capacity: false };
        self.core.commits.insert(change).await
    }

    async fn allowed_image(&self, request: &CreateSession) -> Result<Image> {
        let image = self.core.images.resolve(&request.image, &request.architecture).await?;
        let directory = self.core.identities.directory().await?;
        let allowed = directory.domains.get(&request.domain).map(|domain| &domain.allowed_docker_registries);
        let is_allowed = allowed.is_none_or(|list| list.is_empty() || list.contains(&registry_of(&image)));
        if is_allowed { Ok(image) } else { Err(image::unknown(&request.image, &request.architecture)) }
    }

    async fn wait_for_start(&self, session: Arc<Session>, request: &CreateSession) -> Result<CreateOutcome> {
        let outcome = |session, timed_out| Ok(CreateOutcome { session, created: true, timed_out });
        if request.enqueue_only {
            return outcome(session, false);
        }
        let id = session.id;
        let started = self.settled(id, |session| !session.status.is_starting());
        if request.max_wait.is_zero() {
            return outcome(started.await?.unwrap_or(session), false);
        }
        match tokio::time::timeout(request.max_wait, started).await {
            Ok(settled) => outcome(settled?.unwrap_or(session), false),
            Err(_) => outcome(self.core.registry.get(id).unwrap_or(session), true),
        }
    }

    /// Waits until the session is as wanted or dead; `None` when it does not exist.
    pub(super) async fn settled(
        &self,
        id: SessionId,
        mut wanted: impl FnMut(&Session) -> bool + Send,
    ) -> Result<Option<Arc<Session>>> {
        let Some(mut watch) = self.core.registry.watch(id) else { return self.core.reload(id).await };
        let seen = watch.wait_for(|session| session.status.is_dead() || wanted(session)).await;
        match seen.map(|session| session.clone()).ok() {
            Some(session) => Ok(Some(session)),
            // The watch has ended without that value: the store has the last word.
            None => self.core.reload(id).await,
        }
    }
}

/// A living session of the wanted name: good when it is of the same image and may be reused.
fn reuse(existing: Arc<Session>, request: &CreateSession, image: &Image) -> Result<CreateOutcome> {
    if request.reuse && existing.main().image == image.name {
        return Ok(CreateOutcome { session: existing, created: false, timed_out: false });
    }
    Err(Error::of(code::SESSION_EXISTS, "a living session has this name")
        .with("name", &request.name)
        .data(json!({ "existingSessionId": existing.id })))
}
