//! Ending, restarting and renaming (spec session-lifecycle.md, section 4).

use axum::extract::State;
use serde_json::{Map, Value, json};

use super::Reference;
use crate::gateway::auth::Auth;
use crate::gateway::failure::Reply;
use crate::gateway::params::{Params, kind};
use crate::gateway::{Gateway, reply};
use crate::session::DestroyOutcome;

/// `DELETE /session/{s}`: the last statistics of what was ended; with `recursive` a list.
pub(in crate::gateway) async fn destroy(
    State(gateway): State<Gateway>,
    auth: Auth,
    Reference(reference): Reference,
    params: Params,
) -> Reply {
    let scope = auth.scope(&gateway, params.owner()).await?;
    let mut check = params.check();
    let forced = check.or("forced", kind::boolean, false);
    let recursive = check.or("recursive", kind::boolean, false);
    check.finish()?;
    let ended = gateway.manager().sessions().destroy(&scope, &reference, forced, recursive).await?;
    let mut stats = ended.into_iter().map(stats);
    if recursive {
        reply::ok(&stats.collect::<Vec<_>>())
    } else {
        reply::ok(&json!({ "stats": stats.next().unwrap_or_default() }))
    }
}

/// Statistics as the official client prints them: version 2 has a map of values per metric.
fn stats(outcome: DestroyOutcome) -> Map<String, Value> {
    let mut stats = match outcome.stats {
        Some(Value::Object(stats)) if !stats.is_empty() => stats,
        _ => Map::new(),
    };
    if !stats.is_empty() {
        stats.entry("version").or_insert(2.into());
    }
    stats.insert("status".into(), outcome.status.into());
    stats
}

/// `PATCH /session/{s}`.
pub(in crate::gateway) async fn restart(
    State(gateway): State<Gateway>,
    auth: Auth,
    Reference(reference): Reference,
    params: Params,
) -> Reply {
    let scope = auth.scope(&gateway, params.owner()).await?;
    params.check().finish()?;
    gateway.manager().sessions().restart(&scope, &reference).await?;
    Ok(reply::no_content())
}

/// `POST /session/{s}/rename`.
pub(in crate::gateway) async fn rename(
    State(gateway): State<Gateway>,
    auth: Auth,
    Reference(reference): Reference,
    params: Params,
) -> Reply {
    let scope = auth.scope(&gateway, params.owner()).await?;
    let mut check = params.check();
    let name = check.required("name|session_name|clientSessionToken", kind::session_name);
    check.finish()?;
    gateway.manager().sessions().rename(&scope, &reference, &name).await?;
    Ok(reply::no_content())
}
