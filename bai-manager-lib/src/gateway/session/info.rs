//! `GET /session/{s}`: most fields are Python text forms (spec rest-manager.md, section 2.5).

use axum::extract::State;
use bai_core::execution::KernelStats;
use bai_core::{ProjectId, Session, Timestamp, UserId};
use serde::Serialize;
use serde_json::{Map, Value};

use super::Target;
use crate::gateway::failure::Reply;
use crate::gateway::{Gateway, python, reply};
use crate::idle::IdleChecks;

/// The reply, borrowing from the session: this is the most frequent request of all.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_field_names, reason = "the names are those of the reply")]
struct Info<'a> {
    domain_name: &'a str,
    group_id: ProjectId,
    user_id: UserId,
    lang: &'a str,
    image: &'a str,
    architecture: &'a str,
    registry: &'a str,
    tag: Option<&'a str>,
    container_id: Option<&'a str>,
    occupied_slots: String,
    occupying_slots: String,
    requested_slots: String,
    occupied_shares: &'static str,
    environ: String,
    resource_opts: String,
    status: &'static str,
    status_info: &'a str,
    status_data: &'a Map<String, Value>,
    age: i64,
    creation_time: String,
    termination_time: Option<String>,
    num_queries_executed: u64,
    last_stat: Option<Stat<'a>>,
    idle_checks: IdleChecks,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Stat<'a> {
    Live(&'a KernelStats),
    Last(&'a Value),
}

/// The session as the owner sees it.
pub(in crate::gateway) async fn info(State(gateway): State<Gateway>, target: Target) -> Reply {
    let sessions = gateway.manager().sessions();
    let session = sessions.resolve(&target.scope, &target.reference, false).await?;
    let main = session.main();
    let report = sessions.last_report(main);
    let live = report.as_ref().and_then(|report| report.stats.as_ref()).map(Stat::Live);
    let mut info = describe(&session, gateway.manager().backends().clock.now());
    info.last_stat = live.or_else(|| main.last_stat.as_ref().map(Stat::Last));
    info.num_queries_executed = sessions.queries_executed(session.id);
    info.idle_checks = sessions.idle_checks(&session);
    reply::ok(&info)
}

fn describe(session: &Session, now: Timestamp) -> Info<'_> {
    let main = session.main();
    let allocated = python::slots(&session.allocated());
    let ended = session.terminated_at.unwrap_or(now);
    Info {
        domain_name: &session.owner.domain,
        group_id: session.owner.project_id,
        user_id: session.owner.user_id,
        lang: &main.image,
        image: &main.image,
        architecture: &main.architecture,
        registry: &main.registry,
        tag: session.spec.tag.as_deref(),
        container_id: main.container_id.as_deref(),
        occupied_slots: allocated.clone(),
        occupying_slots: allocated,
        requested_slots: python::slots(&session.requested()),
        occupied_shares: "{}",
        environ: python::dict(session.spec.environ.iter().map(|(key, value)| (key.as_str(), value.as_str()))),
        resource_opts: resource_opts(session),
        status: session.status.as_str(),
        status_info: session.status_info.as_deref().unwrap_or_default(),
        status_data: &session.status_data,
        age: (ended - session.created_at).num_milliseconds(),
        creation_time: python::datetime(session.created_at),
        termination_time: session.terminated_at.map(python::datetime),
        num_queries_executed: 0,
        last_stat: None,
        idle_checks: IdleChecks::new(),
    }
}

/// The options, for each kernel under its host name.
fn resource_opts(session: &Session) -> String {
    let options = &session.spec.resource_opts;
    python::dict(
        session.kernels.iter().map(|kernel| (kernel.hostname.as_str(), Value::Object(options.clone()))),
    )
}
