//! Creating sessions from templates. No template can be stored yet, so that after the check of the parameters the
//! answer is always that there is none (spec rest-manager.md, sections 2.3 and 2.4).

use axum::extract::State;
use bai_core::error::code;
use bai_core::status::{ClusterMode, SessionType};
use uuid::Uuid;

use super::create::{
    ARCHITECTURE, CLUSTER_MODE, CLUSTER_SIZE, DOMAIN, GROUP, IMAGE, NAME, TYPE, common, config_of,
};
use crate::gateway::Gateway;
use crate::gateway::auth::Auth;
use crate::gateway::failure::{Failure, Reply};
use crate::gateway::params::{Params, kind};
use crate::gateway::pipeline::Wire;
use crate::session::CreateSession;

/// `POST /session/_/create-from-template`.
pub(in crate::gateway) async fn create_from_template(
    State(gateway): State<Gateway>,
    auth: Auth,
    axum::Extension(wire): axum::Extension<Wire>,
    params: Params,
) -> Reply {
    auth.scope(&gateway, params.owner()).await?;
    let mut check = params.check();
    let template = check.required("template_id|templateId", optional_uuid);
    let mut overrides = CreateSession::new(String::new(), String::new());
    check.optional(NAME, kind::session_name);
    check.optional(IMAGE, kind::text);
    check.optional(ARCHITECTURE, kind::text);
    check.optional(TYPE, kind::one_of::<SessionType>);
    check.optional(GROUP, kind::text);
    check.optional(DOMAIN, kind::text);
    check.or(CLUSTER_SIZE, kind::unsigned::<u32>(1, i64::from(u32::MAX)), 1);
    check.or(CLUSTER_MODE, kind::one_of, ClusterMode::SingleNode);
    check.optional("callback_url|callbackUrl|callbackURL", kind::absolute_url);
    check.optional("dependencies", kind::list(kind::text));
    common(&mut check, &mut overrides);
    check.nested("config", |config| config_of(config, wire.version(), &mut overrides));
    check.finish()?;
    no_such_template(template)
}

/// `POST /session/_/create-cluster`.
pub(in crate::gateway) async fn create_cluster(
    State(gateway): State<Gateway>,
    auth: Auth,
    params: Params,
) -> Reply {
    auth.scope(&gateway, params.owner()).await?;
    let mut check = params.check();
    check.required("clientSessionToken", kind::session_name);
    let template = check.required("template_id|templateId", optional_uuid);
    check.optional(TYPE, kind::one_of::<SessionType>);
    check.optional(GROUP, kind::text);
    check.optional(DOMAIN, kind::text);
    check.optional("scaling_group|scalingGroup", kind::text);
    check.optional("tag", kind::text);
    check.or("enqueueOnly", kind::boolean, false);
    check.or("maxWaitSeconds", kind::integer(0, i64::MAX), 0);
    check.finish()?;
    no_such_template(template)
}

fn optional_uuid(value: &serde_json::Value) -> Result<Option<Uuid>, String> {
    if value.is_null() { Ok(None) } else { kind::uuid(value).map(Some) }
}

fn no_such_template(id: Option<Uuid>) -> Reply {
    let name = id.map_or_else(|| "null".to_owned(), |id| id.to_string());
    Err(Failure::of(code::TEMPLATE_NOT_FOUND, format!("there is no template {name}")))
}
