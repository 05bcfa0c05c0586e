//! Reading about sessions: matches, logs, history, dependencies.

use axum::extract::State;
use bai_core::error::code;
use bai_core::{AgentId, Session};
use serde_json::{Map, Value, json};

use super::Target;
use crate::gateway::auth::Auth;
use crate::gateway::failure::{Failure, Reply};
use crate::gateway::params::{Params, kind};
use crate::gateway::{Gateway, python, reply};
use crate::session::DependencyNode;

/// `GET /session/_/match`: sessions with exactly this id or name.
pub(in crate::gateway) async fn matches(State(gateway): State<Gateway>, auth: Auth, params: Params) -> Reply {
    let scope = auth.scope(&gateway, params.owner()).await?;
    let mut check = params.check();
    let reference = check.required("id", kind::text);
    check.finish()?;
    let found = gateway.manager().sessions().matches(&scope, &reference).await?;
    let rows = found.iter().map(|row| json!({ "id": row.id, "name": row.name, "status": row.status }));
    reply::ok(&json!({ "matches": rows.collect::<Vec<_>>() }))
}

/// `POST /session/_/sync-agent-registry`: agents report their kernels by themselves, so a known one is in sync.
pub(in crate::gateway) async fn sync_agent_registry(
    State(gateway): State<Gateway>,
    _auth: Auth,
    params: Params,
) -> Reply {
    let mut check = params.check();
    let agent = AgentId::new(check.required("agent", kind::text));
    check.finish()?;
    if gateway.manager().agents().get(&agent).is_none() {
        return Err(Failure::of(code::AGENT_NOT_FOUND, format!("no agent {agent}")));
    }
    reply::ok(&json!({}))
}

/// `GET /session/_/logs`: the log of a batch task is in the folder `.logs`; nobody has such a folder yet.
pub(in crate::gateway) async fn task_logs(_auth: Auth, params: Params) -> Reply {
    let mut check = params.check();
    check.required("session_name|sessionName|task_id|taskId", kind::uuid);
    check.finish()?;
    Err(Failure::of(code::VFOLDER_NOT_FOUND, "there is no folder .logs"))
}

/// `GET /session/{s}/logs`: console output, of dead sessions the kept one.
pub(in crate::gateway) async fn logs(State(gateway): State<Gateway>, target: Target) -> Reply {
    let log = gateway.manager().sessions().logs(&target.scope, &target.reference).await?;
    reply::ok(&json!({ "result": { "logs": String::from_utf8_lossy(&log) } }))
}

/// `GET /session/{s}/status-history`: when each status was entered, under its name in upper and in lower case.
pub(in crate::gateway) async fn status_history(State(gateway): State<Gateway>, target: Target) -> Reply {
    let session = gateway.manager().sessions().resolve(&target.scope, &target.reference, true).await?;
    reply::ok(&json!({ "result": history(&session) }))
}

fn history(session: &Session) -> Map<String, Value> {
    let entries =
        session.status_history.iter().map(|(status, at)| (status.clone(), Value::from(python::iso(*at))));
    let lower = entries.clone().map(|(status, at)| (status.to_ascii_lowercase(), at));
    entries.clone().chain(lower).collect()
}

/// `GET /session/{s}/dependency-graph`.
pub(in crate::gateway) async fn dependency_graph(State(gateway): State<Gateway>, target: Target) -> Reply {
    let root = gateway.manager().sessions().dependency_graph(&target.scope, &target.reference).await?;
    reply::ok(&graph(&root))
}

/// Nodes in the text forms that the official client takes apart (spec session-lifecycle.md, section 4).
fn graph(node: &DependencyNode) -> Value {
    json!({
        "session_id": node.id,
        "session_name": node.name,
        "status": format!("KernelStatus.{}", node.status),
        "status_changed": python::datetime_with_fraction(node.status_changed),
        "depends_on": node.depends_on.iter().map(graph).collect::<Vec<_>>(),
    })
}
