//! What must be true once nothing goes wrong any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bai_core::port::SessionStore;
use bai_core::port::agent::{KernelRef, KernelStage};
use bai_core::port::store::AgentStatus;
use bai_core::slots::ResourceSlots;
use bai_core::status::{ClusterMode, SessionType};
use bai_core::{AgentId, Kernel, KernelStatus, Session, SessionId, SessionStatus, Timestamp};
use chrono::TimeDelta;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, LIMITED, Seat};

/// How often is looked whether everything is as it should be.
const LOOK: Duration = Duration::from_secs(5);
/// How often in a row it has to be.
const LOOKS: u32 = 3;
/// Longest time until it is.
const PATIENCE: Duration = Duration::from_mins(15);
/// A claim is given up this long after its time at the latest.
const CLAIM_LAG: TimeDelta = TimeDelta::seconds(30);

/// Waits until everything is as it should be, and blames what never is.
pub(crate) async fn settle(cluster: &Arc<Cluster>, when: &str) -> bool {
    let deadline = Instant::now() + PATIENCE;
    let mut good = 0;
    loop {
        let wrong = problems(cluster).await;
        good = if wrong.is_empty() { good + 1 } else { 0 };
        if good == LOOKS {
            cluster.trace.say(format_args!("settled {when}"));
            return true;
        }
        if Instant::now() >= deadline {
            for what in wrong {
                cluster.trace.blame(format_args!("{when}: {what}"));
            }
            return false;
        }
        sleep(LOOK).await;
    }
}

/// All that is not as it should be.
async fn problems(cluster: &Cluster) -> Vec<String> {
    let sessions = cluster.store.ledger().sessions();
    let mut wrong = Vec::new();
    for session in sessions.iter().filter(|session| !session.status.is_dead()) {
        let whats = [unsettled(session), claims(session, cluster.now())];
        wrong.extend(whats.into_iter().flatten().map(|what| format!("{} {what}", session.name)));
    }
    kernels(cluster, &sessions, &mut wrong);
    waiting(cluster, &sessions, &mut wrong);
    leaders(cluster, &mut wrong);
    let occupying = occupying(cluster, &sessions);
    if occupying > LIMITED as usize {
        wrong.push(format!("a user who may have {LIMITED} sessions has {occupying}"));
    }
    let rows = cluster.store.rows();
    if !rows.unpublished(1).await.unwrap().is_empty() {
        wrong.push("events are not published".to_owned());
    }
    for id in cluster.acknowledged.lock().iter() {
        if !sessions.iter().any(|session| session.id == *id) {
            wrong.push(format!("{id} was acknowledged and does not exist"));
        }
    }
    memories(cluster, &mut wrong);
    wrong
}

/// Why a living session cannot stay as it is.
fn unsettled(session: &Session) -> Option<String> {
    match session.status {
        SessionStatus::Pending => None,
        SessionStatus::Running | SessionStatus::RunningDegraded => {
            let endless = session.session_type == SessionType::Batch;
            endless.then(|| "is a batch session whose end nobody has noticed".to_owned())
        }
        status => Some(format!("is stuck in {status}")),
    }
}

/// What is wrong with the claim of a living session: those who wait keep theirs for a time, and others have none.
fn claims(session: &Session, now: Timestamp) -> Option<String> {
    let preemption = session.status_data.get("preemption")?;
    if session.status != SessionStatus::Pending {
        return Some("has a claim although it does not wait".to_owned());
    }
    let expires: Timestamp = preemption.get("claim")?.get("expires")?.as_str()?.parse().ok()?;
    (expires + CLAIM_LAG < now).then(|| "has a claim that has run out".to_owned())
}

/// Kernels and records agree, one to one.
fn kernels(cluster: &Cluster, sessions: &[Arc<Session>], wrong: &mut Vec<String>) {
    let mut recorded = BTreeMap::<(&AgentId, KernelRef), &Kernel>::new();
    for kernel in sessions.iter().flat_map(|session| &session.kernels) {
        if let Some(agent) = kernel.agent.as_ref().filter(|_| kernel.status == KernelStatus::Running) {
            recorded.insert((agent, KernelRef { id: kernel.id, generation: kernel.generation }), kernel);
        }
    }
    for node in cluster.nodes.values() {
        for (kernel, (_, stage)) in node.living() {
            let runs = matches!(stage, KernelStage::Running(_));
            if recorded.remove(&(node.id(), kernel)).is_none() || !runs {
                wrong.push(format!("{kernel:?} on {} has no record: {stage:?}", node.id()));
            }
        }
        wrong.extend(
            node.remains().into_iter().map(|kernel| format!("{kernel:?} on {} is not forgotten", node.id())),
        );
    }
    wrong.extend(recorded.keys().map(|(agent, kernel)| format!("{kernel:?} does not run on {agent}")));
}

/// Whoever waits says why, and it is true.
fn waiting(cluster: &Cluster, sessions: &[Arc<Session>], wrong: &mut Vec<String>) {
    let free = cluster.store.ledger().free();
    let pending: Vec<_> =
        sessions.iter().filter(|session| session.status == SessionStatus::Pending).collect();
    let is_blocked =
        |session: &&&Arc<Session>| !has_room(session, cluster.of_group(&session.resource_group, &free));
    let blocked: BTreeMap<SessionId, &str> = pending
        .iter()
        .filter(is_blocked)
        .map(|session| (session.id, session.resource_group.as_str()))
        .collect();
    for session in &pending {
        if reason(session).is_none() {
            wrong.push(format!("{} waits and nobody says why", session.name));
        }
        // Somebody who does not fit may have room kept for it.
        let held_back =
            blocked.iter().any(|(id, group)| *id != session.id && *group == session.resource_group);
        let free_to_start = !is_limited(cluster, session, sessions) && !depends(session, sessions);
        if free_to_start && !blocked.contains_key(&session.id) && !held_back {
            wrong.push(format!("{} waits although it fits: {:?}", session.name, reason(session)));
        }
    }
}

fn reason(session: &Session) -> Option<&str> {
    session.status_data.get("scheduler")?.get("msg")?.as_str().filter(|reason| !reason.is_empty())
}

/// Whether agents have room for all kernels, each for itself or, on a single node, all together.
fn has_room(session: &Session, mut free: BTreeMap<AgentId, ResourceSlots>) -> bool {
    if session.cluster_mode == ClusterMode::SingleNode {
        let all = session.requested();
        return free.values().any(|free| all.fits_in(free));
    }
    session.kernels.iter().all(|kernel| {
        let agent = free.values_mut().find(|free| kernel.requested.fits_in(free));
        agent.map(|free| free.take(&kernel.requested)).is_some()
    })
}

fn is_limited(cluster: &Cluster, session: &Session, sessions: &[Arc<Session>]) -> bool {
    let key = &session.owner.access_key;
    let limited = cluster.users.last().is_some_and(|scope| scope.owner.keypair.access_key == *key);
    limited && occupying(cluster, sessions) >= LIMITED as usize
}

/// How many sessions the limited user has at once.
fn occupying(cluster: &Cluster, sessions: &[Arc<Session>]) -> usize {
    let Some(limited) = cluster.users.last() else { return 0 };
    let is_theirs = |session: &&Arc<Session>| session.owner.access_key == limited.owner.keypair.access_key;
    sessions.iter().filter(is_theirs).filter(|session| session.status.occupies_quota()).count()
}

fn depends(session: &Session, sessions: &[Arc<Session>]) -> bool {
    let open = |id: &SessionId| sessions.iter().any(|other| other.id == *id && !other.status.is_dead());
    session.spec.dependencies.iter().any(open)
}

/// One manager plans.
fn leaders(cluster: &Cluster, wrong: &mut Vec<String>) {
    let leaders = cluster.seats().values().filter(|seat| seat.manager.is_leader()).count();
    if leaders != 1 {
        wrong.push(format!("{leaders} managers plan"));
    }
}

/// All managers remember what the records say.
fn memories(cluster: &Cluster, wrong: &mut Vec<String>) {
    let free = cluster.store.ledger().free();
    for (name, Seat { manager, .. }) in &cluster.seats() {
        let agents = manager.agents().list();
        let alive = agents.iter().filter(|agent| agent.status == AgentStatus::Alive).count();
        if alive != cluster.nodes.len() {
            wrong.push(format!("{name} believes that {alive} agents live"));
        }
        for agent in &agents {
            let room = agent.capacity.remaining(&manager.agents().occupied(&agent.id));
            let right = free.get(&agent.id);
            if right != Some(&room) {
                wrong.push(format!("{name} believes that {room} is free on {}, not {right:?}", agent.id));
            }
        }
    }
}
