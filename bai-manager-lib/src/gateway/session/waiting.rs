//! The queue, and why a session waits. These endpoints are bai's own.

use axum::extract::State;
use bai_core::Session;
use serde_json::{Value, json};

use super::Target;
use crate::gateway::auth::Auth;
use crate::gateway::failure::Reply;
use crate::gateway::params::{Params, kind};
use crate::gateway::{Gateway, reply};
use crate::session::WaitingSession;

/// `GET /session/{s}/explain`: why a session waits, in words and for programs; `waiting` is null for one that does not.
pub(in crate::gateway) async fn explain(State(gateway): State<Gateway>, target: Target) -> Reply {
    let sessions = gateway.manager().sessions();
    let (session, waiting) = sessions.explain(&target.scope, &target.reference).await?;
    let message =
        waiting.as_ref().map_or_else(|| standing(&session), |waiting| waiting.explanation.sentence());
    reply::ok(&json!({
        "sessionId": session.id,
        "sessionName": session.name,
        "resourceGroup": session.resource_group,
        "status": session.status,
        "message": message,
        "waiting": waiting.as_ref().map(detail),
    }))
}

/// What there is to say about a session that does not wait.
fn standing(session: &Session) -> String {
    let reason = session.status_info.as_deref().filter(|reason| !reason.is_empty());
    let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("the session does not wait: it is {}{reason}", session.status)
}

fn detail(waiting: &WaitingSession) -> Value {
    json!({ "position": waiting.position, "explanation": &*waiting.explanation })
}

/// `GET /session/_/queue`: the waiting sessions, of the resource group `group` or of all; those in line first, in their order.
pub(in crate::gateway) async fn queue(State(gateway): State<Gateway>, auth: Auth, params: Params) -> Reply {
    let scope = auth.scope(&gateway, params.owner()).await?;
    let mut check = params.check();
    let group = check.optional("group|scaling_group|scalingGroup", kind::text);
    check.finish()?;
    let queue = gateway.manager().sessions().queue(&scope, group.as_deref()).await?;
    reply::ok(&json!({ "items": queue.iter().map(item).collect::<Vec<_>>() }))
}

fn item(waiting: &WaitingSession) -> Value {
    let session = &waiting.session;
    json!({
        "sessionId": session.id,
        "sessionName": session.name,
        "accessKey": session.owner.access_key,
        "resourceGroup": session.resource_group,
        "priority": session.priority,
        "createdAt": session.created_at,
        "position": waiting.position,
        "verdict": waiting.explanation.verdict,
        "message": waiting.explanation.sentence(),
        "estimate": waiting.explanation.estimate,
    })
}
