//! Finding sessions by reference.

use std::sync::Arc;

use bai_core::error::code;
use bai_core::port::store::SessionQuery;
use bai_core::{AccessKey, Error, Result, Session, SessionId, SessionStatus};
use serde_json::{Value, json};

use super::{SessionMatch, SessionService};
use crate::identity::Scope;
use crate::manager::core::Core;

/// Rows of the `match` reply.
const MAX_MATCHES: u64 = 10;

impl SessionService {
    /// The owner's session with this id or name. Dead ones are found with `stale_ok` only; a living one wins over dead ones
    /// of the same name.
    ///
    /// # Errors
    /// `NotFound` ([`code::SESSION_NOT_FOUND`], [`code::TOO_MANY_SESSIONS`] with `data.matches`).
    pub async fn resolve(&self, scope: &Scope, reference: &str, stale_ok: bool) -> Result<Arc<Session>> {
        let owner = &scope.owner.keypair.access_key;
        let visible = |session: &Arc<Session>| stale_ok || !session.status.is_dead();
        if let Ok(id) = reference.parse::<SessionId>()
            && let Some(session) = by_id(&self.core, owner, id).await?.filter(visible)
        {
            return Ok(session);
        }
        if let Some(session) = living(&self.core, owner, reference).await? {
            return Ok(session);
        }
        let mut dead =
            if stale_ok { named(&self.core, owner, reference, Some(MAX_MATCHES)).await? } else { Vec::new() };
        match dead.len() {
            0 => Err(Error::of(code::SESSION_NOT_FOUND, "no such session").with("session", reference)),
            1 => Ok(dead.remove(0)),
            _ => Err(too_many(reference, &dead)),
        }
    }

    /// The newest ten sessions of the owner with exactly this id or name, dead ones included.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached.
    pub async fn matches(&self, scope: &Scope, reference: &str) -> Result<Vec<SessionMatch>> {
        let owner = &scope.owner.keypair.access_key;
        let mut found = named(&self.core, owner, reference, Some(MAX_MATCHES)).await?;
        if let Ok(id) = reference.parse::<SessionId>() {
            found.extend(by_id(&self.core, owner, id).await?);
        }
        Ok(found
            .iter()
            .map(|session| SessionMatch {
                id: session.id,
                name: session.name.clone(),
                status: session.status,
            })
            .collect())
    }
}

/// The session with this id, if it belongs to `owner`.
pub(super) async fn by_id(
    core: &Arc<Core>,
    owner: &AccessKey,
    id: SessionId,
) -> Result<Option<Arc<Session>>> {
    Ok(core.load(id).await?.filter(|session| session.owner.access_key == *owner))
}

/// The living session with this name.
pub(super) async fn living(core: &Arc<Core>, owner: &AccessKey, name: &str) -> Result<Option<Arc<Session>>> {
    if core.is_current() {
        return Ok(core.registry.by_name(owner, name));
    }
    let statuses = SessionStatus::ALL.iter().copied().filter(|status| !status.is_dead()).collect();
    let query = SessionQuery { statuses, ..query(owner, name, Some(1)) };
    let found = core.backends.sessions.find(&query).await?.items.pop().map(Arc::new);
    if let Some(session) = &found {
        core.take(session);
    }
    Ok(found)
}

/// The living session with this name, if memory knows it. Where others write to the store, there may be one that it does not know.
pub(super) async fn remembered(
    core: &Arc<Core>,
    owner: &AccessKey,
    name: &str,
) -> Result<Option<Arc<Session>>> {
    match core.registry.by_name(owner, name) {
        Some(known) if !core.is_current() => {
            let living = |session: &Arc<Session>| !session.status.is_dead() && session.name == name;
            Ok(core.reload(known.id).await?.filter(living))
        }
        known => Ok(known),
    }
}

/// All sessions with this name, dead or alive, newest first.
pub(super) async fn named(
    core: &Arc<Core>,
    owner: &AccessKey,
    name: &str,
    limit: Option<u64>,
) -> Result<Vec<Arc<Session>>> {
    let page = core.backends.sessions.find(&query(owner, name, limit)).await?;
    Ok(page.items.into_iter().map(Arc::new).collect())
}

fn query(owner: &AccessKey, name: &str, limit: Option<u64>) -> SessionQuery {
    SessionQuery {
        access_key: Some(owner.clone()),
        name: Some(name.to_owned()),
        limit,
        ..SessionQuery::default()
    }
}

fn too_many(reference: &str, found: &[Arc<Session>]) -> Error {
    let matches: Vec<Value> = found
        .iter()
        .map(|session| json!({ "id": session.id, "name": session.name, "status": session.status }))
        .collect();
    Error::of(code::TOO_MANY_SESSIONS, "several sessions match: use an id")
        .with("session", reference)
        .data(json!({ "matches": matches }))
}
