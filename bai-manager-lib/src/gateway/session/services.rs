//! App services of a session, and the small endpoints around its kernel (spec rest-manager.md, sections 2.7 and 3).

use axum::extract::State;
use bai_core::error::code;
use bai_core::session::ServicePort;
use bai_core::{Error, ErrorKind, Session};
use serde_json::{Value, json};
use std::sync::Arc;

use super::{Reference, Target};
use crate::gateway::auth::Auth;
use crate::gateway::failure::{Failure, Reply};
use crate::gateway::params::{Check, Params, kind};
use crate::gateway::{Gateway, reply};

/// A port as clients see it.
pub(in crate::gateway) fn public_port(port: &ServicePort) -> Value {
    json!({ "name": port.name, "protocol": port.protocol, "ports": port.container_ports })
}

/// `GET /stream/session/{s}/apps`.
pub(in crate::gateway) async fn apps(State(gateway): State<Gateway>, target: Target) -> Reply {
    let services = gateway.manager().sessions().services(&target.scope, &target.reference).await?;
    reply::ok(&services.ports.iter().map(public_port).collect::<Vec<_>>())
}

/// `GET /session/{s}/direct-access-info`: only system sessions can be reached directly, and there are none.
pub(in crate::gateway) async fn direct_access(State(gateway): State<Gateway>, target: Target) -> Reply {
    gateway.manager().sessions().resolve(&target.scope, &target.reference, false).await?;
    reply::ok(&json!({}))
}

/// `POST /session/{s}/start-service`: opens an app through the app proxy of the session's resource group.
pub(in crate::gateway) async fn start(
    State(gateway): State<Gateway>,
    auth: Auth,
    reference: Reference,
    params: Params,
) -> Reply {
    let checked = |check: &mut Check| {
        check.optional("login_session_token", kind::text);
        check.optional("port", kind::integer(1024, 65535));
        check.optional("envs", kind::json_text);
        check.optional("arguments", kind::json_text);
        check.required("app|service", kind::non_empty)
    };
    let (session, app) = checked_session(&gateway, &auth, &reference, params, checked).await?;
    let directory = gateway.manager().identities().directory().await?;
    let proxy =
        directory.resource_groups.get(&session.resource_group).and_then(|row| row.wsproxy_addr.as_deref());
    if proxy.is_none_or(str::is_empty) {
        return Err(Failure::of(code::UNAVAILABLE, "No coordinator configured for this resource group"));
    }
    if !session.main().service_ports.iter().any(|port| port.name == app) {
        return Err(Failure::of(code::APP_SERVICE_NOT_FOUND, format!("{}:{app}", session.id)));
    }
    Err(unsupported("app proxies are not supported"))
}

/// `POST /session/{s}/shutdown-service`. Kernels start no services on demand, so there is none to end.
pub(in crate::gateway) async fn shutdown(
    State(gateway): State<Gateway>,
    auth: Auth,
    reference: Reference,
    params: Params,
) -> Reply {
    let checked = |check: &mut Check| check.required("service_name", kind::non_empty);
    let (session, app) = checked_session(&gateway, &auth, &reference, params, checked).await?;
    Err(Failure::of(code::APP_SERVICE_NOT_FOUND, format!("{}:{app}", session.id)))
}

/// `POST /session/{s}/commit`: no back end can make an image of a kernel.
pub(in crate::gateway) async fn commit(
    State(gateway): State<Gateway>,
    auth: Auth,
    reference: Reference,
    params: Params,
) -> Reply {
    let checked = |check: &mut Check| {
        check.optional("login_session_token", kind::text);
        check.optional("filename|fname", kind::text);
    };
    checked_session(&gateway, &auth, &reference, params, checked).await?;
    Err(unsupported("this back end cannot commit sessions"))
}

/// `GET /session/{s}/commit`: nothing is ever in progress.
pub(in crate::gateway) async fn commit_status(
    State(gateway): State<Gateway>,
    auth: Auth,
    reference: Reference,
    params: Params,
) -> Reply {
    let checked = |check: &mut Check| check.optional("login_session_token", kind::text);
    let (session, _) = checked_session(&gateway, &auth, &reference, params, checked).await?;
    reply::ok(&json!({ "status": "ready", "kernel": session.main().id }))
}

/// `GET /session/{s}/abusing-report`: no kernel is watched for abuse.
pub(in crate::gateway) async fn abusing_report(
    State(gateway): State<Gateway>,
    auth: Auth,
    reference: Reference,
    params: Params,
) -> Reply {
    let checked = |check: &mut Check| check.optional("login_session_token", kind::text);
    checked_session(&gateway, &auth, &reference, params, checked).await?;
    reply::ok(&json!({}))
}

fn unsupported(message: &str) -> Failure {
    Failure(Error::new(ErrorKind::Unsupported, message))
}

/// The living session of a request whose parameters are `checked`.
async fn checked_session<T>(
    gateway: &Gateway,
    auth: &Auth,
    reference: &Reference,
    params: Params,
    checked: impl FnOnce(&mut Check) -> T,
) -> Result<(Arc<Session>, T), Failure> {
    let scope = auth.scope(gateway, params.owner()).await?;
    let mut check = params.check();
    let values = checked(&mut check);
    check.finish()?;
    let session = gateway.manager().sessions().resolve(&scope, &reference.0, false).await?;
    Ok((session, values))
}
