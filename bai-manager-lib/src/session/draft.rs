//! From a request to a session: every rule of creation (spec rest-manager.md, section 2; scheduler.md, section 7).

use std::collections::BTreeSet;
use std::sync::Arc;

use bai_core::error::code;
use bai_core::identity::{Project, ResourceGroup, UserRole};
use bai_core::image::Image;
use bai_core::image_ref::ImageRef;
use bai_core::port::store::Directory;
use bai_core::session::{Owner, SessionSpec, StatusHistory};
use bai_core::status::{ClusterMode, SessionResult, SessionType};
use bai_core::units::TimeSpan;
use bai_core::{
    Error, Kernel, KernelId, KernelStatus, ResourceSlots, Result, Session, SessionId, SessionStatus,
    Timestamp,
};
use serde_json::{Map, Value, json};

use super::resources::{self, Resources};
use super::{CreateSession, lookup};
use crate::identity::Scope;
use crate::manager::core::Core;

/// Most kernels of a session, whatever the policy says.
const MAX_CLUSTER: u32 = 1024;
/// Longest bootstrap script.
const MAX_SCRIPT: usize = 64 * 1024;
/// Ports the runner listens on inside every kernel.
const RUNNER_PORTS: [u16; 6] = [2000, 2001, 2002, 2003, 2200, 7681];

fn invalid(message: impl Into<String>) -> Error {
    Error::of(code::INVALID_PARAMETERS, message)
}

/// Checks a request that names `image`, and makes the session of it.
///
/// # Errors
/// As in spec rest-manager.md, section 2.2.
pub(super) async fn draft(
    core: &Arc<Core>,
    scope: &Scope,
    request: &CreateSession,
    image: &Image,
) -> Result<Session> {
    let now = core.now();
    let directory = core.identities.directory().await?;
    check_size(scope, request)?;
    check_texts(request)?;
    check_priority(scope, request)?;
    check_ports(request, image)?;
    check_agents(core, scope, request)?;
    let owner = owner(scope, request, &directory)?;
    let group = resource_group(&directory, request, &owner)?;
    let starts_at = starts_at(request, now)?;
    let resources = resources::resolve(
        image,
        &core.agents.slot_types(),
        request.resources.as_ref(),
        &request.resource_opts,
    )?;
    let dependencies = dependencies(core, scope, request).await?;
    let history = StatusHistory::from([(SessionStatus::Pending.as_str().to_owned(), now)]);
    Ok(Session {
        id: SessionId::random(),
        version: 0,
        name: request.name.clone(),
        owner,
        resource_group: group.name.clone(),
        session_type: request.session_type,
        cluster_mode: request.cluster_mode,
        priority: request.priority.unwrap_or(10),
        status: SessionStatus::Pending,
        status_info: None,
        status_data: Map::new(),
        status_history: history,
        result: SessionResult::Undefined,
        created_at: now,
        starts_at,
        terminated_at: None,
        kernels: kernels(request, image, &resources.slots, now),
        spec: spec(scope, request, resources, dependencies),
    })
}

fn check_size(scope: &Scope, request: &CreateSession) -> Result<()> {
    let most = scope.owner.policy.max_containers_per_session;
    if request.cluster_size == 0 {
        return Err(invalid("a session has at least one kernel"));
    }
    if most > 0 && request.cluster_size > most {
        let message = format!("You cannot create session with more than {most} containers.");
        return Err(Error::of(code::CLUSTER_TOO_LARGE, message).with("cluster_size", request.cluster_size));
    }
    if request.cluster_size > MAX_CLUSTER {
        let message = format!("A session has at most {MAX_CLUSTER} kernels.");
        return Err(Error::of(code::CLUSTER_TOO_LARGE, message).with("cluster_size", request.cluster_size));
    }
    Ok(())
}

fn check_texts(request: &CreateSession) -> Result<()> {
    let has_command = request.startup_command.as_ref().is_some_and(|command| !command.trim().is_empty());
    if request.session_type == SessionType::Batch && !has_command {
        return Err(invalid("Batch sessions must have a non-empty startup command."));
    }
    if request.session_type == SessionType::Inference {
        return Err(invalid("Inference sessions are created by model services only."));
    }
    if let Some(priority) = request.priority.filter(|priority| !(0..=100).contains(priority)) {
        return Err(invalid("the priority is a number from 0 to 100").with("priority", priority));
    }
    if request.bootstrap_script.as_ref().is_some_and(|script| script.len() > MAX_SCRIPT) {
        return Err(invalid(format!("the bootstrap script is longer than {MAX_SCRIPT} bytes")));
    }
    if let Some(name) =
        request.environ.iter().find(|(name, value)| !is_variable(name, value)).map(|(name, _)| name)
    {
        return Err(invalid("not a valid environment variable").with("name", format_args!("{name:?}")));
    }
    let mount = request.mounts.first().or_else(|| request.mount_map.keys().next());
    if let Some(folder) = mount {
        return Err(invalid("no such folder").with("folder", folder));
    }
    request.callback_url.as_deref().map_or(Ok(()), check_url)
}

fn check_priority(scope: &Scope, request: &CreateSession) -> Result<()> {
    let most = scope.owner.policy.max_priority;
    let over = request.priority.zip(most).filter(|(priority, most)| priority > most);
    over.map_or(Ok(()), |(priority, most)| {
        let message = format!("You cannot ask for a priority above {most}");
        Err(Error::of(code::PRIORITY_TOO_HIGH, message).with("priority", priority))
    })
}

fn is_variable(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}

fn check_url(url: &str) -> Result<()> {
    let parsed = url.parse::<http::Uri>().ok();
    let good =
        parsed.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    if good {
        Ok(())
    } else {
        Err(invalid("the callback URL must be an absolute http or https URL").with("url", url))
    }
}

fn check_ports(request: &CreateSession, image: &Image) -> Result<()> {
    let service_ports = service_ports(image.label("service-ports").unwrap_or_default());
    let mut seen = BTreeSet::new();
    for port in &request.preopen_ports {
        let problem = if *port < 1024 {
            "a preopen port is a number from 1024 to 65535"
        } else if RUNNER_PORTS.contains(port) {
            "the port is used by the kernel itself"
        } else if service_ports.contains(port) {
            "the port is used by a service of the image"
        } else if !seen.insert(port) {
            "the port is given twice"
        } else {
            continue;
        };
        return Err(invalid(problem).with("port", port));
    }
    Ok(())
}

/// The port numbers of a label such as `jupyter:http:8080,vnc:http:[6080,6081]`.
fn service_ports(label: &str) -> BTreeSet<u16> {
    label.split([':', ',', '[', ']']).filter_map(|part| part.trim().parse().ok()).collect()
}

fn check_agents(core: &Core, scope: &Scope, request: &CreateSession) -> Result<()> {
    if request.agent_list.is_empty() {
        return Ok(());
    }
    if !scope.requester.is_superadmin() {
        let message = "You are not allowed to manually assign agents for your session.";
        return Err(Error::of(code::INSUFFICIENT_PRIVILEGE, message));
    }
    let needed = match request.cluster_mode {
        ClusterMode::SingleNode => 1,
        ClusterMode::MultiNode => request.cluster_size as usize,
    };
    if request.agent_list.len() != needed {
        return Err(invalid("the number of designated agents does not match the cluster")
            .with("given", request.agent_list.len())
            .with("needed", needed));
    }
    match request.agent_list.iter().find(|agent| core.agents.get(agent).is_none()) {
        Some(unknown) => Err(invalid("No such agent").with("agent", unknown)),
        None => Ok(()),
    }
}

fn owner(scope: &Scope, request: &CreateSession, directory: &Directory) -> Result<Owner> {
    let user = &scope.owner.user;
    // Who acts for itself uses its own projects, whatever its role.
    let role = if scope.is_delegated() { user.role } else { UserRole::User };
    if role != UserRole::Superadmin && request.domain != user.domain {
        return Err(invalid(format!("You can only set the domain to {}", user.domain)));
    }
    if !directory.domains.get(&request.domain).is_some_and(|domain| domain.is_active) {
        return Err(invalid("Invalid domain"));
    }
    let all_projects = matches!(role, UserRole::Superadmin | UserRole::Admin);
    let may_use = |(project, members): &&(Project, Vec<_>)| {
        project.is_active
            && project.domain == request.domain
            && (project.name == request.project || project.id.to_string() == request.project)
            && (all_projects || members.contains(&user.id))
    };
    let (project, _) = directory.projects.iter().find(may_use).ok_or_else(|| invalid("Invalid group"))?;
    Ok(Owner {
        access_key: scope.owner.keypair.access_key.clone(),
        user_id: user.id,
        email: user.email.clone(),
        domain: request.domain.clone(),
        project_id: project.id,
        project: project.name.clone(),
    })
}

fn resource_group<'a>(
    directory: &'a Directory,
    request: &CreateSession,
    owner: &Owner,
) -> Result<&'a ResourceGroup> {
    let missing = |message: &str| Error::of(code::RESOURCE_GROUP_NOT_FOUND, message);
    let mut allowed = directory
        .resource_groups
        .values()
        .filter(|group| group.is_active && group.domains.contains(&owner.domain))
        .filter(|group| request.resource_group.as_ref().is_none_or(|name| *name == group.name))
        .peekable();
    if allowed.peek().is_none() {
        return Err(match &request.resource_group {
            Some(name) => {
                missing("The resource group does not exist or is not allowed.").with("resource_group", name)
            }
            None => missing("No resource group is allowed for the domain.").with("domain", &owner.domain),
        });
    }
    let type_name = request.session_type.as_str();
    allowed.find(|group| accepts(group, type_name)).ok_or_else(|| {
        missing("No allowed resource group accepts sessions of this type.").with("type", type_name)
    })
}

fn accepts(group: &ResourceGroup, session_type: &str) -> bool {
    match group.scheduler_opts.get("allowed_session_types").and_then(Value::as_array) {
        Some(types) => {
            types.iter().filter_map(Value::as_str).any(|name| name.eq_ignore_ascii_case(session_type))
        }
        None => true,
    }
}

fn starts_at(request: &CreateSession, now: Timestamp) -> Result<Option<Timestamp>> {
    let Some(text) = request.starts_at.as_deref().map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    if request.session_type != SessionType::Batch {
        return Err(invalid("Parameter starts_at should be used only for batch sessions"));
    }
    if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
        return Ok(Some(time.to_utc()));
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
        if let Ok(time) = chrono::NaiveDateTime::parse_from_str(text, format) {
            return Ok(Some(time.and_utc()));
        }
    }
    let span = text.parse::<TimeSpan>().ok().and_then(|span| span.after(now));
    span.map(Some)
        .ok_or_else(|| invalid("starts_at is neither a time nor a duration").with("starts_at", text))
}

async fn dependencies(core: &Arc<Core>, scope: &Scope, request: &CreateSession) -> Result<Vec<SessionId>> {
    let owner = &scope.owner.keypair.access_key;
    let mut found = Vec::new();
    for reference in &request.dependencies {
        let mut session = match reference.parse() {
            Ok(id) => lookup::by_id(core, owner, id).await?,
            Err(_) => None,
        };
        if session.is_none() {
            session = lookup::living(core, owner, reference).await?;
        }
        if session.is_none() {
            session = lookup::named(core, owner, reference, Some(1)).await?.into_iter().next();
        }
        let unknown = || {
            Error::of(code::UNKNOWN_DEPENDENCY, "Unknown session ID or name in the dependency list")
                .data(json!({ "session_ref": reference }))
        };
        let id = session.ok_or_else(unknown)?.id;
        if !found.contains(&id) {
            found.push(id);
        }
    }
    Ok(found)
}

/// The registry of an image; those without one are `local`.
pub(super) fn registry_of(image: &Image) -> String {
    let parsed = image.name.parse::<ImageRef>().ok();
    parsed.and_then(|image| image.registry().map(str::to_owned)).unwrap_or_else(|| "local".to_owned())
}

fn kernels(request: &CreateSession, image: &Image, slots: &ResourceSlots, now: Timestamp) -> Vec<Kernel> {
    let registry = registry_of(image);
    (0..request.cluster_size)
        .map(|rank| {
            let (role, idx) = if rank == 0 { ("main", 1) } else { ("sub", rank) };
            Kernel {
                id: KernelId::random(),
                role: role.to_owned(),
                idx,
                local_rank: rank,
                hostname: format!("{role}{idx}"),
                image: image.name.clone(),
                architecture: image.architecture.clone(),
                registry: if registry == "local" { String::new() } else { registry.clone() },
                agent: None,
                generation: 0,
                status: KernelStatus::Pending,
                status_info: None,
                status_data: Map::new(),
                status_history: StatusHistory::from([(KernelStatus::Pending.as_str().to_owned(), now)]),
                requested: slots.clone(),
                allocated: ResourceSlots::new(),
                container_id: None,
                kernel_host: None,
                service_ports: Vec::new(),
                attached_devices: Map::new(),
                exit_code: None,
                last_stat: None,
                started_at: None,
                terminated_at: None,
            }
        })
        .collect()
}

fn spec(
    scope: &Scope,
    request: &CreateSession,
    resources: Resources,
    dependencies: Vec<SessionId>,
) -> SessionSpec {
    let user = &scope.owner.user;
    let mut environ = request.environ.clone();
    environ.insert("BACKENDAI_USER_NAME".into(), user.username.clone());
    if user.sudo_session_enabled {
        environ.insert("SUDO_SESSION_ENABLED".into(), "1".into());
    } else {
        environ.remove("SUDO_SESSION_ENABLED");
    }
    SessionSpec {
        tag: request.tag.clone(),
        startup_command: request.startup_command.clone(),
        bootstrap_script: request.bootstrap_script.clone(),
        callback_url: request.callback_url.clone(),
        environ,
        mounts: request.mounts.clone(),
        mount_map: request.mount_map.clone(),
        resource_opts: resources.options,
        preopen_ports: request.preopen_ports.clone(),
        dependencies,
        designated_agents: request.agent_list.clone(),
        batch_timeout: request.batch_timeout.map(|timeout| timeout.as_secs().max(1)),
    }
}
