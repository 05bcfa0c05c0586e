//! A resource group as the scheduler sees it, built from what the manager knows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bai_core::identity::ResourceGroup;
use bai_core::port::store::{AgentStatus, Directory};
use bai_core::slots::ResourceSlots;
use bai_core::status::{SessionResult, SessionType};
use bai_core::{AgentId, Result, Session, SessionId, SessionStatus};
use bai_scheduler::{
    Agent, Delta, Dependency, DependencyState, Designation, Drf, Group, Holder, Kernel, Options, Owner,
    Running,
};
use chrono::TimeDelta;
use serde_json::Value;

use super::quotas::{limits_of, policy_of};
use crate::manager::core::Core;
use crate::session::failure::failed_agents;

/// The group with all its agents, with everything that holds something, and with `waiting`.
pub(crate) async fn group(
    core: &Arc<Core>,
    name: &str,
    directory: &Directory,
    waiting: &[Arc<Session>],
) -> Result<Group> {
    let options = options(directory.resource_groups.get(name));
    let mut group = Group::new(options, core.agents.slot_types());
    let agents = agents(core, name, waiting).await?;
    let ids: BTreeSet<AgentId> = agents.iter().map(|agent| agent.id.clone()).collect();
    for agent in agents {
        group.apply(Delta::Agent(Box::new(agent)))?;
    }
    add_holding(core, name, directory, &ids, &mut group)?;
    for holder in waiting.iter().flat_map(|session| holders(session)).collect::<BTreeSet<_>>() {
        let limits = limits_of(directory, &core.agents.slot_types(), &holder);
        group.apply(Delta::Limits(holder, Box::new(limits)))?;
    }
    let mut dependencies = BTreeMap::new();
    for id in waiting.iter().flat_map(|session| &session.spec.dependencies).collect::<BTreeSet<_>>() {
        dependencies.insert(*id, dependency(core, *id).await?);
    }
    for session in waiting {
        let mut model = model(directory, session);
        model.dependencies =
            session.spec.dependencies.iter().filter_map(|id| dependencies.get(id)).cloned().collect();
        group.apply(Delta::Enqueued(Box::new(model)))?;
    }
    Ok(group)
}

/// Everything that holds something: here as it is, in other groups as the usage of its owners.
fn add_holding(
    core: &Core,
    name: &str,
    directory: &Directory,
    agents: &BTreeSet<AgentId>,
    group: &mut Group,
) -> Result<()> {
    let mut elsewhere = BTreeMap::<Holder, (ResourceSlots, u32)>::new();
    for session in core.registry.all() {
        if session.status == SessionStatus::Pending {
            continue;
        }
        let here = session.resource_group == name
            || session
                .kernels
                .iter()
                .any(|kernel| kernel.agent.as_ref().is_some_and(|id| agents.contains(id)));
        if here {
            group.apply(Delta::Holds(Box::new(running(directory, &session))))?;
        } else if session.status.occupies_quota() {
            for holder in holders(&session) {
                let (slots, sessions) = elsewhere.entry(holder).or_default();
                slots.add(&session.allocated());
                *sessions += 1;
            }
        }
    }
    for (holder, (slots, sessions)) in elsewhere {
        group.apply(Delta::UsedElsewhere(holder, slots, [sessions, 0]))?;
    }
    Ok(())
}

/// Unknown names of schedulers mean DRF, unknown strategies mean dispersed. Turns are not kept between passes, so agents do
/// not take turns.
fn options(group: Option<&ResourceGroup>) -> Options {
    let mut options = Options::default();
    let Some(group) = group else { return options };
    options.sequencer = Options::sequencer_named(&group.scheduler).unwrap_or_else(|| Arc::new(Drf));
    let strategy = group.scheduler_opts.get("agent_selection_strategy").and_then(Value::as_str);
    let strategy = strategy.filter(|name| *name != "roundrobin").and_then(Options::selector_named);
    options.selector = strategy.unwrap_or(options.selector);
    options
}

async fn agents(core: &Core, group: &str, waiting: &[Arc<Session>]) -> Result<Vec<Agent>> {
    let mut images = HashMap::<AgentId, BTreeSet<String>>::new();
    let wanted: BTreeSet<_> =
        waiting.iter().flat_map(|session| &session.kernels).map(|kernel| &kernel.image).collect();
    for image in wanted {
        for agent in core.images.agents_with(image).await?.iter() {
            images.entry(agent.clone()).or_default().insert(image.clone());
        }
    }
    let here = core.agents.list().into_iter().filter(|agent| agent.resource_group == group);
    Ok(here
        .map(|agent| Agent {
            schedulable: agent.schedulable && agent.status == AgentStatus::Alive,
            images: Some(images.remove(&agent.id).unwrap_or_default()),
            id: agent.id,
            architecture: agent.architecture,
            capacity: agent.capacity,
            labels: BTreeMap::new(),
        })
        .collect())
}

/// How far a dependency is. One that has been purged can no longer succeed.
async fn dependency(core: &Arc<Core>, id: SessionId) -> Result<Dependency> {
    let Some(session) = core.load(id).await? else {
        return Ok(Dependency { id, name: String::new(), state: DependencyState::Failed });
    };
    let state = match session.result {
        SessionResult::Success => DependencyState::Succeeded,
        SessionResult::Failure => DependencyState::Failed,
        SessionResult::Undefined if session.status.is_dead() => DependencyState::Failed,
        SessionResult::Undefined => DependencyState::Waiting,
    };
    Ok(Dependency { id, name: session.name.clone(), state })
}

/// Whose limits a session counts against.
fn holders(session: &Session) -> [Holder; 4] {
    let owner = &session.owner;
    [
        Holder::Keypair(owner.access_key.clone()),
        Holder::User(owner.user_id),
        Holder::Project(owner.project_id),
        Holder::Domain(owner.domain.clone()),
    ]
}

fn running(directory: &Directory, session: &Session) -> Running {
    let model = model(directory, session);
    let holds = |kernel: &bai_core::Kernel| kernel.agent.clone().filter(|_| !kernel.allocated.is_empty());
    let since = session.main().started_at.unwrap_or_else(|| session.status_changed());
    Running {
        agents: session.kernels.iter().map(holds).collect(),
        since,
        ends_at: model.max_runtime.map(|limit| since + limit),
        leaving: !session.status.occupies_quota(),
        session: model,
    }
}

fn model(directory: &Directory, session: &Session) -> bai_scheduler::Session {
    let kernel = |kernel: &bai_core::Kernel| {
        Kernel::new(kernel.requested.clone(), kernel.architecture.clone(), kernel.image.clone())
    };
    bai_scheduler::Session {
        id: session.id,
        owner: Owner {
            access_key: session.owner.access_key.clone(),
            user: session.owner.user_id,
            project: session.owner.project_id,
            domain: session.owner.domain.clone(),
        },
        priority: session.priority,
        job_priority: session.priority,
        preemptible: false,
        created_at: session.created_at,
        session_type: session.session_type,
        private: false,
        cluster_mode: session.cluster_mode,
        starts_at: session.starts_at.filter(|_| session.session_type == SessionType::Batch),
        max_runtime: max_runtime(directory, session),
        dependencies: Vec::new(),
        designated: session.spec.designated_agents.clone(),
        designation: Designation::Strict,
        avoid: failed_agents(session),
        group: None,
        kernels: session.kernels.iter().map(kernel).collect(),
    }
}

/// The shorter of batch timeout and session lifetime.
fn max_runtime(directory: &Directory, session: &Session) -> Option<TimeDelta> {
    let batch = session.spec.batch_timeout.filter(|_| session.session_type == SessionType::Batch);
    let policy = policy_of(directory, &session.owner.access_key);
    let lifetime = policy.map(|policy| policy.max_session_lifetime).filter(|seconds| *seconds > 0);
    let seconds = batch.into_iter().chain(lifetime).min()?;
    TimeDelta::try_seconds(i64::try_from(seconds).ok()?)
}
