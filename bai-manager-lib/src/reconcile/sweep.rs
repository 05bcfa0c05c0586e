//! Deadlines: every state that is not an end has one, so nothing is ever stuck.

use std::sync::Arc;
use std::time::Duration;

use bai_core::session::KernelExit;
use bai_core::status::SessionResult;
use bai_core::{AgentId, Result, Session, SessionStatus, Timestamp};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::Instant;

use super::deadlines::Deadlines;
use super::queue::Item;
use crate::agent::pace::TICK;
use crate::manager::core::Core;
use crate::session::failure::{StartFailure, end_now, kernel_died, start_failed, start_over, terminate};

/// How often dead sessions past their retention are deleted.
const PURGE_INTERVAL: Duration = Duration::from_mins(10);
/// Sessions deleted at once.
const PURGE_BATCH: u32 = 1000;

/// Watches whether the time goes evenly, whatever else takes long.
pub(crate) async fn keep_pace(core: Arc<Core>) {
    loop {
        core.agents.keep_pace(core.now());
        tokio::select! {
            () = core.tasks.stopped() => return,
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// Looks at all deadlines every second while this manager plans.
pub(crate) async fn run(core: Arc<Core>) {
    let mut last_full = Instant::now();
    let mut last_purge: Option<Instant> = None;
    let mut last_tick = core.now();
    let mut deadlines = Deadlines::of(&core.options);
    loop {
        tokio::select! {
            () = core.tasks.stopped() => return,
            () = tokio::time::sleep(TICK) => {}
        }
        if !core.is_leader() {
            continue;
        }
        let now = core.now();
        lose_agents(&core, now).await;
        expire(&core, &deadlines, now).await;
        mark_reserved_times(&core, last_tick, now);
        last_tick = now;
        if last_full.elapsed() >= core.options.resync_interval {
            last_full = Instant::now();
            mark_everything(&core);
            match Deadlines::read(&core.options, &*core.backends.config).await {
                Ok(read) => deadlines = read,
                Err(error) => tracing::warn!(%error, "the deadlines of the cluster cannot be read"),
            }
        }
        if last_purge.is_none_or(|at| at.elapsed() >= PURGE_INTERVAL) {
            last_purge = Some(Instant::now());
            purge(&core, now).await;
        }
    }
}

/// Has everything looked at: the safety net under the wake-ups.
pub(crate) fn mark_everything(core: &Arc<Core>) {
    // Those without a queue, too: what is used there counts in others.
    for group in core.registry.groups() {
        core.groups.mark(&group);
    }
    for session in core.registry.all() {
        for kernel in session.kernels.iter().filter(|kernel| !kernel.status.is_dead()) {
            if let Some(agent) = &kernel.agent {
                core.mark(agent, Item::Kernel(kernel.id));
            }
        }
    }
}

/// Batch sessions whose reserved time has come since the last tick.
fn mark_reserved_times(core: &Core, last: Timestamp, now: Timestamp) {
    for session in core.registry.all() {
        let has_come = session.starts_at.is_some_and(|start| last < start && start <= now);
        if has_come && session.status == SessionStatus::Pending {
            core.groups.mark(&session.resource_group);
        }
    }
}

async fn lose_agents(core: &Arc<Core>, now: Timestamp) {
    let lost = core.agents.lose_silent(core.options.agent_lost_after, now);
    for agent in &lost {
        tracing::warn!(agent = %agent.id, last_seen = %agent.last_seen, "agent lost");
        if let Err(error) = core.backends.agents.put_agent(agent).await {
            tracing::warn!(agent = %agent.id, %error, "the loss of an agent is not recorded");
        }
    }
}

/// What is due for a session.
enum Overdue {
    /// Give the start up, or try elsewhere.
    Start(Option<AgentId>, String),
    /// Cancel it.
    Cancel(&'static str),
    /// End it.
    Terminate(&'static str),
    /// Declare it dead without its agents.
    End(&'static str),
    /// Declare the kernels on lost agents dead.
    LostKernels(Vec<AgentId>),
}

async fn expire(core: &Arc<Core>, deadlines: &Deadlines, now: Timestamp) {
    let overdue = core
        .registry
        .all()
        .into_iter()
        .filter_map(|session| Some((overdue(core, deadlines, &session, now)?, session)));
    join_all(overdue.map(|(what, session)| async move {
        let id = session.id;
        let status = session.status;
        let result =
            core.update(id, |session, now| {
                if session.status == status { settle(core, session, &what, now) } else { Ok(()) }
            })
            .await;
        if let Err(error) = result {
            tracing::warn!(session = %id, %error, "an expired session is not dealt with yet");
        }
    }))
    .await;
}

fn overdue(core: &Core, deadlines: &Deadlines, session: &Session, now: Timestamp) -> Option<Overdue> {
    let age = now - session.status_changed();
    let older = |limit: Duration| age.to_std().is_ok_and(|age| age > limit);
    let lost = lost_agents(core, session);
    let start = |limit: Duration| {
        if let Some((agent, _)) = lost.first() {
            return Some(Overdue::Start(Some(agent.clone()), "the agent was lost".to_owned()));
        }
        let agent =
            session.kernels.iter().find(|kernel| kernel.started_at.is_none()).and_then(|k| k.agent.clone());
        older(limit)
            .then(|| Overdue::Start(agent, format!("it took longer than {} seconds", limit.as_secs())))
    };
    match session.status {
        SessionStatus::Pending => {
            pending_timeout(core, session).is_some_and(older).then_some(Overdue::Cancel("pending-timeout"))
        }
        SessionStatus::Scheduled | SessionStatus::Preparing => start(deadlines.preparing),
        SessionStatus::Pulling => start(deadlines.pulling),
        SessionStatus::Restarting if older(deadlines.restarting) => {
            Some(Overdue::Terminate("restart-timeout"))
        }
        SessionStatus::Terminating if !lost.is_empty() && lost.len() == agents_of(session).len() => {
            Some(Overdue::End("agent-lost"))
        }
        SessionStatus::Terminating if older(deadlines.terminating) => {
            // A live agent is still asked until its kernel is gone; only the record ends.
            Some(Overdue::End(if lost.is_empty() { "hang-timeout" } else { "agent-lost" }))
        }
        SessionStatus::Running | SessionStatus::RunningDegraded | SessionStatus::Restarting => {
            let given_up =
                |at: Timestamp| (now - at).to_std().is_ok_and(|age| age > core.options.lost_agent_grace);
            let dead: Vec<_> =
                lost.into_iter().filter(|(_, at)| given_up(*at)).map(|(agent, _)| agent).collect();
            (!dead.is_empty()).then_some(Overdue::LostKernels(dead))
        }
        _ => None,
    }
}

fn settle(core: &Core, session: &mut Session, overdue: &Overdue, now: Timestamp) -> Result<()> {
    match overdue {
        Overdue::Start(agent, message) => {
            let name = bai_core::error::code::KERNEL_CREATION.id().to_owned();
            let failure = StartFailure { code: name, message: message.clone(), retryable: true };
            start_failed(session, agent.as_ref(), &failure, core.options.start_attempts, now)
        }
        Overdue::Cancel(reason) => session.cancel(reason, now),
        Overdue::Terminate(reason) => terminate(session, reason, now),
        Overdue::End(reason) => {
            let asked = session.status_info.clone();
            end_now(session, reason, now)?;
            // A session that was asked to end has ended for that reason, unless its agent was lost.
            if *reason != "agent-lost" {
                session.status_info = asked;
            }
            Ok(())
        }
        Overdue::LostKernels(agents) => {
            if starts_over(core, session) && start_over(session, agents, core.options.start_attempts, now)? {
                return Ok(());
            }
            let on_lost = |kernel: &&bai_core::Kernel| {
                !kernel.status.is_dead() && kernel.agent.as_ref().is_some_and(|agent| agents.contains(agent))
            };
            for kernel in session.kernels.iter().filter(on_lost).map(|kernel| kernel.id).collect::<Vec<_>>() {
                kernel_died(
                    session,
                    kernel,
                    KernelExit { code: None, reason: "agent-lost".to_owned(), oom: false },
                    now,
                )?;
            }
            Ok(())
        }
    }
}

fn agents_of(session: &Session) -> Vec<&AgentId> {
    let living = session.kernels.iter().filter(|kernel| !kernel.status.is_dead());
    let mut agents: Vec<_> = living.filter_map(|kernel| kernel.agent.as_ref()).collect();
    agents.sort_unstable();
    agents.dedup();
    agents
}

/// Lost agents that living kernels of the session are on, and since when.
fn lost_agents(core: &Core, session: &Session) -> Vec<(AgentId, Timestamp)> {
    let agents = agents_of(session).into_iter();
    agents.filter_map(|id| Some((id.clone(), core.agents.lost_since(id)?))).collect()
}

/// Whether the session starts anew when an agent is lost: option `reschedule_lost` of the resource group lists the types that
/// do. A batch session that has its result does not.
fn starts_over(core: &Core, session: &Session) -> bool {
    let Some(directory) = core.identities.last_directory() else { return false };
    let group = directory.resource_groups.get(&session.resource_group);
    let types = group.and_then(|group| group.scheduler_opts.get("reschedule_lost")?.as_array());
    let listed = types.into_iter().flatten().filter_map(Value::as_str);
    session.result == SessionResult::Undefined
        && listed.into_iter().any(|name| name.eq_ignore_ascii_case(session.session_type.as_str()))
}

/// Longest wait in the queue: option `pending_timeout` of the resource group, in seconds; off when missing or zero.
fn pending_timeout(core: &Core, session: &Session) -> Option<Duration> {
    let directory = core.identities.last_directory()?;
    let group = directory.resource_groups.get(&session.resource_group)?;
    let seconds = group.scheduler_opts.get("pending_timeout").and_then(Value::as_f64)?;
    Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero())
}

async fn purge(core: &Core, now: Timestamp) {
    match core.backends.sessions.purge(now - core.options.retention, PURGE_BATCH).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "dead sessions past their retention are deleted"),
        Err(error) => tracing::warn!(%error, "dead sessions are not purged"),
    }
}
