//! What every store decides alike, so that no two of them can differ: which sessions it takes, what they hold, how
//! their events look, and the errors of a refusal.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::error::{Error, Result, code};
use crate::id::{AgentId, SessionId};
use crate::port::store::{NewEvent, SessionEvent};
use crate::session::Session;
use crate::slots::ResourceSlots;

/// Refuses a session without kernels: [`Session::main`] relies on there being one.
///
/// # Errors
/// `Invalid` when there is none.
pub fn require_kernels(session: &Session) -> Result<()> {
    if session.kernels.is_empty() {
        return Err(
            Error::of(code::INVALID_PARAMETERS, "a session needs a kernel").with("session", session.id)
        );
    }
    Ok(())
}

/// What the session holds on each of its agents; agents it holds nothing on are left out.
pub fn held_by(session: &Session) -> BTreeMap<&AgentId, ResourceSlots> {
    let mut held = BTreeMap::<_, ResourceSlots>::new();
    for kernel in session.kernels.iter().filter(|kernel| !kernel.allocated.is_zero()) {
        if let Some(agent) = &kernel.agent {
            held.entry(agent).or_default().add(&kernel.allocated);
        }
    }
    held
}

/// Refuses a change after which `agent` would hold more than its capacity: `others` is what all other sessions
/// hold there, `asked` what this one would.
///
/// # Errors
/// `Conflict` ([`code::OVER_CAPACITY`]).
pub fn require_room(
    session: SessionId,
    agent: &AgentId,
    capacity: &ResourceSlots,
    others: &ResourceSlots,
    asked: &ResourceSlots,
) -> Result<()> {
    let mut held = others.clone();
    held.add(asked);
    held.first_excess(capacity).map_or(Ok(()), |slot| {
        Err(Error::of(code::OVER_CAPACITY, "the agent has no room left")
            .with("session", session)
            .with("agent", agent)
            .with("slot", slot))
    })
}

/// The event as history keeps it and subscribers receive it.
pub fn session_event(session: &Session, event: NewEvent, seq: i64, at: Timestamp) -> SessionEvent {
    let kernel = event.kernel.and_then(|id| session.kernel(id));
    SessionEvent {
        seq,
        at,
        session: session.id,
        session_name: session.name.clone(),
        access_key: session.owner.access_key.clone(),
        user_id: session.owner.user_id,
        domain: session.owner.domain.clone(),
        project_id: session.owner.project_id,
        status: session.status,
        cluster_role: kernel.map(|kernel| kernel.role.clone()),
        cluster_idx: kernel.map(|kernel| kernel.idx),
        event,
    }
}

/// The refusal of an insert: `existing` has the id, or lives under the name.
pub fn session_exists(existing: SessionId, name: &str) -> Error {
    Error::of(code::SESSION_EXISTS, "the session already exists").with("session", existing).with("name", name)
}

/// The refusal of a commit to a session that is not there.
pub fn no_such_session(id: SessionId) -> Error {
    Error::of(code::SESSION_NOT_FOUND, "no such session").with("session", id)
}

/// The refusal of a commit that comes too late.
pub fn moved_on(session: SessionId, version: i64) -> Error {
    Error::of(code::SESSION_MOVED_ON, "the session has been changed by someone else")
        .with("session", session)
        .with("version", version)
}

/// The refusal of a commit under a name that another living session has.
pub fn name_taken(session: &Session) -> Error {
    Error::of(code::SESSION_MOVED_ON, "the name is taken by another session")
        .with("session", session.id)
        .with("name", &session.name)
}
