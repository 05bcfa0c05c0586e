//! `POST /session`: parameters, aliases and the reply (spec rest-manager.md, sections 2.1 and 2.2).

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use bai_core::session::ServicePort;
use bai_core::signing::ApiVersion;
use bai_core::status::{ClusterMode, SessionStatus, SessionType};
use bai_core::units::TimeSpan;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::services::public_port;
use crate::gateway::auth::Auth;
use crate::gateway::failure::{Failure, Reply};
use crate::gateway::params::{Check, Params, kind};
use crate::gateway::pipeline::Wire;
use crate::gateway::{Gateway, reply};
use crate::session::{CreateOutcome, CreateSession};

/// Longest `maxWaitSeconds`, in seconds: a year.
const LONGEST_WAIT: i64 = 366 * 24 * 3600;
/// Names that mean something else in the paths of older clients.
const RESERVED_NAME: &str = "from-template";

pub(super) const NAME: &str = "name|session_name|clientSessionToken";
pub(super) const IMAGE: &str = "image|lang";
pub(super) const ARCHITECTURE: &str = "arch|architecture";
pub(super) const TYPE: &str = "type|sessionType";
pub(super) const GROUP: &str = "group|groupName|group_name";
pub(super) const DOMAIN: &str = "domain|domainName|domain_name";
pub(super) const CLUSTER_SIZE: &str = "cluster_size|clusterSize";
pub(super) const CLUSTER_MODE: &str = "cluster_mode|clusterMode";

/// Creates a session, or finds the living one of that name.
pub(in crate::gateway) async fn create(
    State(gateway): State<Gateway>,
    auth: Auth,
    axum::Extension(wire): axum::Extension<Wire>,
    params: Params,
) -> Reply {
    let scope = auth.scope(&gateway, params.owner()).await?;
    let request = parse(params.check(), wire.version())?;
    let enqueue_only = request.enqueue_only;
    let outcome = gateway.manager().sessions().create(&scope, request).await?;
    describe(&outcome, enqueue_only)
}

fn parse(mut check: Check, version: ApiVersion) -> Result<CreateSession, Failure> {
    let name = check.required(NAME, new_session_name);
    let image = check.required(IMAGE, kind::non_empty);
    let mut request = CreateSession::new(name, image);
    request.architecture = check.or(ARCHITECTURE, kind::non_empty, request.architecture);
    request.session_type = check.or(TYPE, kind::one_of, SessionType::Interactive);
    request.project = check.or(GROUP, kind::text, request.project);
    request.domain = check.or(DOMAIN, kind::text, request.domain);
    request.cluster_size = check.or(CLUSTER_SIZE, kind::unsigned(1, i64::from(u32::MAX)), 1);
    request.cluster_mode = check.or(CLUSTER_MODE, kind::one_of, ClusterMode::SingleNode);
    request.priority = check.optional("priority", priority);
    request.batch_timeout = check.optional("batch_timeout", seconds).map(Duration::from_secs);
    request.callback_url = check.optional("callback_url|callbackUrl|callbackURL", kind::absolute_url);
    request.dependencies = check.or("dependencies", kind::list(kind::text), Vec::new());
    common(&mut check, &mut request);
    check.nested("config", |config| config_of(config, version, &mut request));
    check.finish()?;
    Ok(request)
}

/// The parameters that templates and plain sessions share.
pub(super) fn common(check: &mut Check, request: &mut CreateSession) {
    request.tag = check.optional("tag", kind::text);
    request.enqueue_only = check.or("enqueueOnly", kind::boolean, false);
    request.max_wait = Duration::from_secs(check.or("maxWaitSeconds", kind::unsigned(0, LONGEST_WAIT), 0));
    request.starts_at = check.optional("starts_at|startsAt", kind::text);
    request.reuse = check.or("reuseIfExists", kind::boolean, true);
    request.startup_command = check.optional("startupCommand", kind::text);
    let script = check.optional("bootstrap_script|bootstrapScript", kind::text);
    request.bootstrap_script = script.map(|script| decode_script(&script));
}

/// The `config` object, whose keys depend on the API version (section 2.1.1).
pub(super) fn config_of(config: &mut Check, version: ApiVersion, request: &mut CreateSession) {
    request.mounts = config.or("mounts", kind::list(kind::text), Vec::new());
    request.environ = config.or("environ", kind::text_map, request.environ.clone());
    if version < ApiVersion::new(4, 2019, 3, 15) {
        return early_config(config, request);
    }
    request.resource_group = config.optional("scaling_group|scalingGroup", kind::text);
    request.resources = config.optional("resources", kind::object);
    request.resource_opts =
        config.or("resource_opts|resourceOpts", kind::object, request.resource_opts.clone());
    if version.major() < 6 {
        request.cluster_size =
            config.or(CLUSTER_SIZE, kind::unsigned(1, i64::from(u32::MAX)), request.cluster_size);
    }
    if version.major() >= 5 {
        request.mount_map = config.or("mount_map|mountMap", kind::text_map, request.mount_map.clone());
        let ports = config.optional("preopen_ports|preopenPorts", kind::list(kind::unsigned(1024, 65535)));
        request.preopen_ports = ports.unwrap_or_default();
    }
    if version.major() >= 6 {
        let agents = config.optional("agent_list|agentList", kind::list(kind::text)).unwrap_or_default();
        request.agent_list = agents.into_iter().map(Into::into).collect();
        request.mounts.extend(config.or("mount_ids", kind::list(kind::text), Vec::new()));
        request.mount_map.extend(config.or("mount_id_map", kind::text_map, BTreeMap::new()));
        config.optional("mount_options", kind::object);
        config.optional("attach_network", kind::text);
    }
}

/// The amounts of the first `v4` revisions, which have a key each.
fn early_config(config: &mut Check, request: &mut CreateSession) {
    request.cluster_size =
        config.or(CLUSTER_SIZE, kind::unsigned(1, i64::from(u32::MAX)), request.cluster_size);
    let amounts = [
        ("instanceMemory", "mem"),
        ("instanceCores", "cpu"),
        ("instanceGPUs", "cuda.device"),
        ("instanceTPUs", "tpu.device"),
    ];
    let given = amounts.iter().filter_map(|(key, slot)| Some((*slot, config.take(key)?.1)));
    let resources =
        given.filter(|(_, amount)| !amount.is_null()).map(|(slot, amount)| (slot.to_owned(), amount));
    request.resources =
        Some(resources.collect()).filter(|resources: &serde_json::Map<_, _>| !resources.is_empty());
}

fn new_session_name(value: &Value) -> Result<String, String> {
    let name = kind::session_name(value)?;
    if name == RESERVED_NAME { Err(format!("{RESERVED_NAME} is a reserved name")) } else { Ok(name) }
}

fn priority(value: &Value) -> Result<i32, String> {
    kind::unsigned(0, 100)(value)
}

fn seconds(value: &Value) -> Result<u64, String> {
    match value {
        Value::Number(_) => kind::unsigned(0, LONGEST_WAIT)(value),
        other => kind::text(other)?
            .parse::<TimeSpan>()
            .map(|span| span.to_duration().as_secs())
            .map_err(|_| "value is not a valid time duration".to_owned()),
    }
}

/// The official client sends scripts in base64; what is not base64 of a text is taken as it is.
fn decode_script(script: &str) -> String {
    let compact: String = script.split_ascii_whitespace().collect();
    let decoded = STANDARD.decode(compact).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.unwrap_or_else(|| script.to_owned())
}

/// The reply; a session that existed already has its ports in the long form under another key.
pub(super) fn describe(outcome: &CreateOutcome, enqueue_only: bool) -> Reply {
    let session = &outcome.session;
    let ports = &session.main().service_ports;
    let status = match (outcome.timed_out, enqueue_only && outcome.created) {
        (true, _) => "TIMEOUT",
        (_, true) => SessionStatus::Pending.as_str(),
        _ => session.status.as_str(),
    };
    let (key, ports) = if outcome.created {
        ("servicePorts", ports.iter().map(public_port).collect())
    } else {
        ("service_ports", ports.iter().map(stored_port).collect::<Vec<_>>())
    };
    let body = json!({
        "sessionId": session.id,
        "sessionName": session.name,
        "status": status,
        key: ports,
        "created": outcome.created,
    });
    reply::json(StatusCode::CREATED, &body)
}

/// A port with its host side, as stored.
pub(in crate::gateway) fn stored_port(port: &ServicePort) -> Value {
    json!({
        "name": port.name,
        "protocol": port.protocol,
        "host_ports": port.host_ports,
        "is_inference": false,
        "container_ports": port.container_ports,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: Value, version: ApiVersion) -> Result<CreateSession, Value> {
        let Value::Object(values) = body else { panic!("not an object") };
        parse(Check::new(values), version).map_err(|failure| failure.0.problem_data().cloned().unwrap())
    }

    #[test]
    fn every_alias_is_understood() {
        let request = parsed(
            json!({
                "clientSessionToken": "gold1", "lang": "python", "architecture": "x86_64", "sessionType": "batch",
                "groupName": "g", "domain_name": "d", "clusterSize": "2", "clusterMode": "multi-node",
                "enqueueOnly": "true", "maxWaitSeconds": 30, "startsAt": "5m", "reuseIfExists": false,
                "startupCommand": "true", "bootstrapScript": "ZWNobyBoaQ==", "callbackURL": "http://x.example/cb",
                "dependencies": ["a", "b"], "priority": 20, "batch_timeout": "1h",
                "config": {
                    "scalingGroup": "s", "mountMap": {"a": "/b"}, "preopenPorts": [8080], "agentList": ["i-1"],
                    "resourceOpts": {"shmem": "64m"}, "resources": {"cpu": 1}, "environ": {"A": "B"}, "mounts": ["m"],
                },
            }),
            ApiVersion::V7,
        )
        .unwrap();
        assert_eq!((request.name.as_str(), request.image.as_str()), ("gold1", "python"));
        assert_eq!((request.project.as_str(), request.domain.as_str()), ("g", "d"));
        assert_eq!(
            (request.session_type, request.cluster_mode),
            (SessionType::Batch, ClusterMode::MultiNode)
        );
        assert_eq!((request.cluster_size, request.max_wait), (2, Duration::from_secs(30)));
        assert_eq!(request.bootstrap_script.as_deref(), Some("echo hi"));
        assert_eq!(request.batch_timeout, Some(Duration::from_hours(1)));
        assert_eq!((request.resource_group.as_deref(), request.preopen_ports), (Some("s"), vec![8080]));
        assert!(request.enqueue_only && !request.reuse);
    }

    #[test]
    fn config_keys_depend_on_the_version() {
        let body = |config: Value| json!({"name": "abcd", "image": "python", "config": config});
        let early = ApiVersion::new(4, 2018, 12, 15);
        let request = parsed(body(json!({"instanceMemory": "1g", "instanceCores": 2})), early).unwrap();
        assert_eq!(Value::from(request.resources.unwrap()), json!({"mem": "1g", "cpu": 2}));
        let mistakes = parsed(body(json!({"agent_list": ["i-1"]})), ApiVersion::ASSUMED).unwrap_err();
        assert_eq!(mistakes, json!({"config": {"agent_list": "agent_list is not allowed key"}}));
        let mistakes = parsed(body(json!({"clusterSize": 2})), ApiVersion::V7).unwrap_err();
        assert_eq!(mistakes, json!({"config": {"clusterSize": "clusterSize is not allowed key"}}));
        assert_eq!(parsed(body(json!({"clusterSize": 2})), ApiVersion::ASSUMED).unwrap().cluster_size, 2);
    }

    #[test]
    fn mistakes_are_named() {
        let mistakes = parsed(
            json!({
                "name": "bad name!", "type": "magic", "cluster_size": 0, "callback_url": "x", "nonsense": 1,
                "config": {"preopen_ports": [80], "environ": {"A": 1}},
            }),
            ApiVersion::V7,
        )
        .unwrap_err();
        let keys: Vec<_> = mistakes.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["name", "image", "type", "cluster_size", "callback_url", "config", "nonsense"]);
        assert!(mistakes["name"].as_str().unwrap().starts_with("should be 4 to 64 letters"));
        assert_eq!(mistakes["config"]["environ"], "the value of A is not a string");
    }
}
