//! The queue of a resource group: snapshot, plan, guarded commits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bai_core::error::code;
use bai_core::identity::ResourceGroup;
use bai_core::port::store::{AgentStatus, Directory};
use bai_core::status::SessionResult;
use bai_core::{AgentId, Result, Session, SessionId, SessionStatus};
use bai_scheduler::{
    AgentState, Concentrated, Dependency, DependencyState, Dispersed, Fifo, KernelRequest, Lifo, Pending,
    Plan, Reasons, Refusal, Rules, Selector, Sequencer, SlotOrder, Snapshot, plan,
};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::quotas::quotas;
use crate::manager::core::Core;
use crate::session::failure::failed_agents;

/// Reasons written per pass: a long queue must not turn every pass into as many writes.
const REASONS_PER_PASS: usize = 200;
/// A reason that changed is written again after this many seconds at the earliest.
const REASON_INTERVAL_SECS: i64 = 5;
/// Pause before a group whose pass failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Plans whenever a group is marked.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.tasks.stopped() => return,
            () = core.groups.wake.notified() => {}
        }
        if !core.is_leader() {
            continue; // becoming leader marks all groups
        }
        let mut failed = false;
        for group in core.groups.take() {
            if let Err(error) = pass(&core, &group).await {
                tracing::warn!(group, %error, "a scheduling pass failed and is tried again");
                core.groups.mark(&group);
                failed = true;
            }
        }
        if failed {
            tokio::select! {
                () = core.tasks.stopped() => return,
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }
}

/// One pass over a group.
async fn pass(core: &Arc<Core>, group: &str) -> Result<()> {
    let waiting = core.registry.queued(group);
    if waiting.is_empty() {
        return Ok(());
    }
    let sessions = core.registry.all();
    let directory = core.identities.directory().await?;
    let snapshot = snapshot(core, group, &directory, &sessions, &waiting).await?;
    let decided = decide(&snapshot, directory.resource_groups.get(group));
    tracing::debug!(group, pending = waiting.len(), placed = decided.placements.len(), "scheduling pass");
    join_all(decided.placements.iter().map(|(id, agents)| place(core, *id, agents))).await;
    let by_id: HashMap<_, _> = waiting.iter().map(|session| (session.id, session)).collect();
    let due = decided.unplaced.iter().filter(|(id, reasons)| {
        by_id
            .get(id)
            .is_some_and(|session| reasons.refusal == Refusal::Hopeless || is_due(core, session, reasons))
    });
    join_all(due.take(REASONS_PER_PASS).map(|(id, reasons)| explain(core, *id, reasons))).await;
    Ok(())
}

fn decide(snapshot: &Snapshot, group: Option<&ResourceGroup>) -> Plan {
    let option = |name: &str| group.and_then(|group| group.scheduler_opts.get(name)).and_then(Value::as_str);
    let sequencer: &dyn Sequencer =
        if group.is_some_and(|group| group.scheduler == "lifo") { &Lifo } else { &Fifo };
    let selector: &dyn Selector = match option("agent_selection_strategy") {
        Some("concentrated") => &Concentrated,
        _ => &Dispersed,
    };
    plan(snapshot, &Rules { sequencer, selector, order: SlotOrder::default() })
}

async fn snapshot(
    core: &Arc<Core>,
    group: &str,
    directory: &Directory,
    sessions: &[Arc<Session>],
    waiting: &[Arc<Session>],
) -> Result<Snapshot> {
    let mut snapshot = Snapshot::at(core.now());
    snapshot.agents = agents(core, group, waiting).await?;
    snapshot.quotas = quotas(directory, &core.agents.slot_types(), sessions, waiting);
    let mut dependencies = BTreeMap::new();
    for id in waiting.iter().flat_map(|session| &session.spec.dependencies).collect::<BTreeSet<_>>() {
        dependencies.insert(*id, dependency(core, *id).await?);
    }
    snapshot.pending = waiting.iter().map(|session| pending(session, &dependencies)).collect();
    Ok(snapshot)
}

async fn agents(core: &Core, group: &str, waiting: &[Arc<Session>]) -> Result<Vec<AgentState>> {
    let held = core.registry.held();
    let mut images = HashMap::<AgentId, BTreeSet<String>>::new();
    let wanted: BTreeSet<_> =
        waiting.iter().flat_map(|session| &session.kernels).map(|kernel| &kernel.image).collect();
    for image in wanted {
        for agent in core.images.agents_with(image).await?.iter() {
            images.entry(agent.clone()).or_default().insert(image.clone());
        }
    }
    let usable = core.agents.list().into_iter().filter(|agent| {
        agent.resource_group == group
            && agent.schedulable
            && agent.status == AgentStatus::Alive
            && core.agents.is_reachable(&agent.id)
    });
    Ok(usable
        .map(|agent| AgentState {
            held: held.get(&agent.id).cloned().unwrap_or_default(),
            images: Some(images.remove(&agent.id).unwrap_or_default()),
            id: agent.id,
            architecture: agent.architecture,
            capacity: agent.capacity,
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

fn pending(session: &Session, dependencies: &BTreeMap<SessionId, Dependency>) -> Pending {
    Pending {
        id: session.id,
        access_key: session.owner.access_key.clone(),
        user: session.owner.user_id,
        project: session.owner.project_id,
        domain: session.owner.domain.clone(),
        priority: session.priority,
        created_at: session.created_at,
        session_type: session.session_type,
        cluster_mode: session.cluster_mode,
        starts_at: session.starts_at,
        dependencies: session
            .spec
            .dependencies
            .iter()
            .filter_map(|id| dependencies.get(id))
            .cloned()
            .collect(),
        designated: session.spec.designated_agents.clone(),
        avoid: failed_agents(session),
        kernels: session
            .kernels
            .iter()
            .map(|kernel| KernelRequest {
                slots: kernel.requested.clone(),
                architecture: kernel.architecture.clone(),
                image: kernel.image.clone(),
            })
            .collect(),
    }
}

async fn place(core: &Arc<Core>, id: SessionId, agents: &[AgentId]) {
    let result = core
        .update_guarded(id, true, |session, now| {
            if session.status != SessionStatus::Pending {
                return Ok(()); // cancelled meanwhile
            }
            session.place(agents, now)
        })
        .await;
    if let Err(error) = result {
        tracing::warn!(session = %id, %error, "a placement is not recorded");
        if error.code() == code::OVER_CAPACITY {
            // Somebody else has placed there: memory lags behind the store.
            crate::session::commit::Absorb::doubt(core);
        }
        if let Some(session) = core.registry.get(id) {
            core.groups.mark(&session.resource_group);
        }
    }
}

/// Whether the reason is news, and the last one is old enough.
fn is_due(core: &Core, session: &Session, reasons: &Reasons) -> bool {
    let Some(known) = session.status_data.get("scheduler") else { return true };
    let last = known
        .get("last_try")
        .and_then(Value::as_str)
        .and_then(|text| text.parse::<bai_core::Timestamp>().ok());
    let old = last.is_none_or(|last| (core.now() - last).num_seconds() >= REASON_INTERVAL_SECS);
    let same = session.status_info.as_deref() == Some(info(reasons))
        && known.get("msg") == Some(&json!(reasons.message))
        && known.get("failed_predicates") == Some(&failed_predicates(reasons));
    !same && (old || session.status_info.as_deref() != Some(info(reasons)))
}

fn info(reasons: &Reasons) -> &'static str {
    match reasons.refusal {
        Refusal::Checks | Refusal::Hopeless => "predicate-checks-failed",
        Refusal::NoAgent => "no-available-instances",
    }
}

fn failed_predicates(reasons: &Reasons) -> Value {
    reasons.failed.iter().map(|failure| json!({ "name": failure.name, "msg": failure.message })).collect()
}

/// Records why a session still waits; one that can never be started is cancelled.
async fn explain(core: &Arc<Core>, id: SessionId, reasons: &Reasons) {
    let result = core
        .update(id, |session, now| {
            if session.status != SessionStatus::Pending {
                return Ok(());
            }
            let known = session.status_data.get("scheduler");
            let retries = known.and_then(|known| known.get("retries")).and_then(Value::as_u64).unwrap_or(0);
            let passed: Value = reasons.passed.iter().map(|name| json!({ "name": name })).collect();
            session.status_data.insert(
                "scheduler".into(),
                json!({
                    "retries": retries + 1,
                    "last_try": now,
                    "failed_predicates": failed_predicates(reasons),
                    "passed_predicates": passed,
                    "msg": reasons.message,
                }),
            );
            session.status_info = Some(info(reasons).to_owned());
            if reasons.refusal == Refusal::Hopeless {
                return session.cancel("dependency-failed", now);
            }
            Ok(())
        })
        .await;
    if let Err(error) = result {
        tracing::debug!(session = %id, %error, "a reason is not recorded: the next pass repeats it");
    }
}
