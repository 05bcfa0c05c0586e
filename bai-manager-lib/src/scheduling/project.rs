//! From records to the scheduler's terms. Pure.

use std::collections::BTreeMap;

use bai_core::status::{SessionResult, SessionType};
use bai_core::{AgentId, Kernel, KernelStatus, Session, SessionId, SessionStatus, Timestamp};
use bai_scheduler::{Delta, Dependency, Designation, GivenUp, Outcome, Owner, Running};
use chrono::TimeDelta;

use super::claim;
use crate::session::failure::failed_agents;

/// What is known besides the record of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    /// Of the sessions that waiting ones depend on.
    pub(super) dependencies: &'a BTreeMap<SessionId, Dependency>,
    /// Longest life of a session of its owner.
    pub(super) lifetime: Option<TimeDelta>,
}

/// How a session has ended, as far as those that depend on it are concerned: a batch session when its command has ended.
pub(crate) fn outcome(session: &Session) -> Option<Outcome> {
    match session.result {
        SessionResult::Success => Some(Outcome::Succeeded),
        SessionResult::Failure => Some(Outcome::Failed),
        SessionResult::Undefined => session.status.is_dead().then_some(Outcome::Failed),
    }
}

/// Where a session is, seen from the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Absent,
    Waiting,
    Holding,
}

fn phase(session: Option<&Session>) -> Phase {
    match session {
        Some(session) if session.status == SessionStatus::Pending => Phase::Waiting,
        Some(session) if session.kernels.iter().any(|kernel| holder(kernel).is_some()) => Phase::Holding,
        _ => Phase::Absent,
    }
}

/// The agent on which a kernel holds something.
fn holder(kernel: &Kernel) -> Option<&AgentId> {
    kernel.agent.as_ref().filter(|_| kernel.status.holds_capacity())
}

/// What a group has to be told so that it knows `new` instead of `old`. A session that is no longer in memory is `None`.
pub(super) fn deltas(
    id: SessionId,
    old: Option<&Session>,
    new: Option<&Session>,
    context: &Context<'_>,
) -> Vec<Delta> {
    let mut deltas = moves(id, old, new, context);
    if let Some((_, new)) = old.zip(new).filter(|(old, new)| old.priority != new.priority) {
        deltas.push(Delta::Prioritised(id, new.priority));
    }
    deltas
}

fn moves(id: SessionId, old: Option<&Session>, new: Option<&Session>, context: &Context<'_>) -> Vec<Delta> {
    match (phase(old), phase(new), new) {
        (Phase::Absent, Phase::Absent, _) => Vec::new(),
        (_, Phase::Absent, _) | (_, _, None) => {
            vec![Delta::Ended(id, new.and_then(outcome).unwrap_or(Outcome::Failed))]
        }
        (Phase::Absent, Phase::Waiting, Some(new)) => vec![Delta::Enqueued(Box::new(session(new, context)))],
        (Phase::Waiting, Phase::Waiting, Some(new)) => {
            // It was placed and came back meanwhile.
            let again = old.is_some_and(|old| {
                let lost_claim = claim::recorded(old).is_some()
                    && claim::recorded(new).is_none()
                    && claim::not_before(new).is_none();
                lost_claim || failed_agents(old) != failed_agents(new)
            });
            let requeued = again.then(|| Delta::Requeued(id, failed_agents(new)));
            requeued.into_iter().chain(claims(id, old.filter(|_| !again), new)).collect()
        }
        (Phase::Holding, Phase::Waiting, Some(new)) => {
            let requeued = Delta::Requeued(id, failed_agents(new));
            [requeued].into_iter().chain(claims(id, None, new)).collect()
        }
        (Phase::Absent | Phase::Waiting, Phase::Holding, Some(new)) => vec![holds(new, context)],
        (Phase::Holding, Phase::Holding, Some(new)) => changes(id, old, new, context),
    }
}

/// The claim of a waiting session, made or given up, if that is news.
pub(super) fn claims(id: SessionId, old: Option<&Session>, new: &Session) -> Option<Delta> {
    let (before, now) = (old.and_then(claim::recorded), claim::recorded(new));
    if let Some(claim) = now {
        return (before.as_ref() != Some(&claim)).then(|| Delta::Claimed(id, Box::new(claim)));
    }
    let again_at =
        claim::not_before(new).filter(|again_at| old.and_then(claim::not_before) != Some(*again_at));
    again_at.map(|again_at| Delta::GivenUp(GivenUp { session: id, again_at }))
}

/// What has changed about a session that held agents and holds some.
fn changes(id: SessionId, old: Option<&Session>, new: &Session, context: &Context<'_>) -> Vec<Delta> {
    let Some(old) = old else { return vec![holds(new, context)] };
    let pairs = || old.kernels.iter().zip(&new.kernels);
    if pairs().any(|(old, new)| holder(new).is_some() && holder(old) != holder(new)) {
        return vec![Delta::Requeued(id, failed_agents(new)), holds(new, context)];
    }
    let ended = pairs().enumerate().filter(|(_, (old, new))| holder(old).is_some() && holder(new).is_none());
    let mut deltas: Vec<_> = ended.map(|(kernel, _)| Delta::KernelEnded(id, kernel)).collect();
    let (at, ends_at) = span(new, context);
    if span(old, context) != (at, ends_at) {
        deltas.push(Delta::Started { session: id, at, ends_at });
    }
    if old.status.occupies_quota() && !new.status.occupies_quota() {
        deltas.push(Delta::Leaving(id));
    }
    deltas
}

fn holds(record: &Session, context: &Context<'_>) -> Delta {
    let (since, ends_at) = span(record, context);
    let agents = record.kernels.iter().map(|kernel| holder(kernel).cloned()).collect();
    let leaving = !record.status.occupies_quota();
    Delta::Holds(Box::new(Running { session: session(record, context), agents, since, ends_at, leaving }))
}

/// Since when a session holds its agents, and when it ends at the latest.
fn span(record: &Session, context: &Context<'_>) -> (Timestamp, Option<Timestamp>) {
    let scheduled = record.status_history.get(KernelStatus::Scheduled.as_str()).copied();
    let started = record.main().started_at;
    let ends = started.zip(max_runtime(record, context)).map(|(start, most)| start + most);
    (started.or(scheduled).unwrap_or(record.created_at), ends)
}

fn max_runtime(record: &Session, context: &Context<'_>) -> Option<TimeDelta> {
    let batch = (record.session_type == SessionType::Batch).then_some(record.spec.batch_timeout).flatten();
    let batch = batch.and_then(|seconds| TimeDelta::try_seconds(i64::try_from(seconds).ok()?));
    [batch, context.lifetime].into_iter().flatten().min()
}

fn session(record: &Session, context: &Context<'_>) -> bai_scheduler::Session {
    let dependencies = record.spec.dependencies.iter();
    bai_scheduler::Session {
        id: record.id,
        owner: owner(record),
        priority: record.priority,
        // Clients know one priority only: it decides about the order as well as about who gives way.
        job_priority: record.priority,
        preemptible: true,
        created_at: record.created_at,
        session_type: record.session_type,
        private: false,
        cluster_mode: record.cluster_mode,
        starts_at: record.starts_at.filter(|_| record.session_type == SessionType::Batch),
        max_runtime: max_runtime(record, context),
        dependencies: dependencies.filter_map(|id| context.dependencies.get(id)).cloned().collect(),
        designated: record.spec.designated_agents.clone(),
        designation: Designation::Strict,
        avoid: failed_agents(record),
        group: None,
        claim: claim::recorded(record),
        no_preemption_before: claim::not_before(record),
        kernels: record
            .kernels
            .iter()
            .map(|kernel| {
                bai_scheduler::Kernel::new(
                    kernel.requested.clone(),
                    kernel.architecture.clone(),
                    kernel.image.clone(),
                )
            })
            .collect(),
    }
}

/// Who a session belongs to.
pub(super) fn owner(record: &Session) -> Owner {
    Owner {
        access_key: record.owner.access_key.clone(),
        user: record.owner.user_id,
        project: record.owner.project_id,
        domain: record.owner.domain.clone(),
    }
}
