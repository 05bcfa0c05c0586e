//! What is known about the cluster without signing: versions, status, slots (spec rest-manager.md, sections 1, 6, 9).

use axum::extract::State;
use bai_core::port::store::SessionQuery;
use bai_core::signing::ApiVersion;
use bai_core::status::SessionStatus;
use serde_json::{Map, Value, json};

use super::Gateway;
use super::failure::Reply;
use super::reply;

/// Version of the manager that clients compare with; our own is in the field `bai`.
const MANAGER_VERSION: &str = "23.09.10";

/// `GET /`: the version probe.
pub(super) async fn versions() -> Reply {
    reply::ok(&json!({
        "version": ApiVersion::V7,
        "manager": MANAGER_VERSION,
        "bai": env!("CARGO_PKG_VERSION"),
    }))
}

/// `GET /manager/status`.
pub(super) async fn status(State(gateway): State<Gateway>) -> Reply {
    let statuses = SessionStatus::ALL.iter().copied().filter(|status| status.occupies_quota()).collect();
    let query = SessionQuery { statuses, limit: Some(0), ..SessionQuery::default() };
    let active = gateway.manager().sessions().find(&query).await?.total;
    let version = ApiVersion::V7;
    reply::ok(&json!({
        "nodes": [{
            "id": gateway.manager().options().id,
            "num_proc": 1,
            "service_addr": gateway.options().service_addr,
            "heartbeat_timeout": gateway.manager().options().agent_lost_after.as_secs_f64(),
            "ssl_enabled": false,
            "active_sessions": active,
            "status": "running",
            "version": MANAGER_VERSION,
            "api_version": [version.major(), version.revision().to_string()],
        }],
        "status": "running",
        "active_sessions": active,
    }))
}

/// `GET /manager/announcement`: there is none.
pub(super) async fn announcement() -> Reply {
    reply::ok(&json!({ "enabled": false, "message": "" }))
}

/// `GET /config/resource-slots`: the slots that agents offer; `cpu` and `mem` always.
pub(super) async fn resource_slots(State(gateway): State<Gateway>) -> Reply {
    let mut slots =
        Map::from_iter([("cpu".to_owned(), Value::from("count")), ("mem".to_owned(), "bytes".into())]);
    for (name, slot_type) in gateway.manager().agents().slot_types().iter() {
        slots.insert(name.to_string(), slot_type.as_str().into());
    }
    reply::ok(&slots)
}
