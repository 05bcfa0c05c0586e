//! The queue of a resource group: what has changed, plan, guarded commits.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bai_core::error::code;
use bai_core::port::store::{AgentStatus, Directory};
use bai_core::{AgentId, Error, KernelStatus, Result, Session, SessionId, SessionStatus};
use bai_scheduler::explain::{Explanation, Verdict};
use bai_scheduler::{Agent, Cancellation, Dependency, DependencyState, Outcome, Placement};
use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::preempt;
use crate::manager::core::Core;
use crate::scheduling::claim;
use crate::scheduling::settings::Settings;
use crate::scheduling::{AgentFacts, Facts, HotGroup, Notes, history, lookback, outcome};

/// Reasons written per pass: a long queue must not turn a pass into as many writes.
const REASONS_PER_PASS: usize = 200;
/// A reason that changed is written again after this many seconds at the earliest.
const REASON_INTERVAL_SECS: i64 = 5;
/// Pause before a group is looked at again whose pass failed, or that has reasons to write later.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Plans whenever a group is marked, or is due.
pub(crate) async fn run(core: Arc<Core>) {
    let mut due = BTreeMap::<String, Instant>::new();
    let mut broken = BTreeSet::new();
    loop {
        let next = due.values().min().copied().unwrap_or_else(|| Instant::now() + Duration::from_hours(1));
        tokio::select! {
            () = core.tasks.stopped() => return,
            () = core.groups.wake.notified() => {}
            () = tokio::time::sleep_until(next) => {}
        }
        if !core.is_leader() {
            due.clear();
            continue; // becoming leader marks all groups
        }
        let mut groups = core.groups.take();
        let now = Instant::now();
        groups.extend(due.iter().filter(|(_, at)| **at <= now).map(|(group, _)| group.clone()));
        if !open(&core, &mut broken).await {
            due.extend(groups.into_iter().map(|group| (group, Instant::now() + RETRY_PAUSE)));
            continue;
        }
        for group in groups {
            due.remove(&group);
            match pass(&core, &group, &broken).await {
                Ok(pause) => {
                    broken.remove(&group);
                    due.extend(pause.map(|pause| (group, Instant::now() + pause)));
                }
                Err(error) => {
                    failed(&core, &group, &error);
                    due.insert(group, Instant::now() + RETRY_PAUSE);
                }
            }
        }
    }
}

fn failed(core: &Core, group: &str, error: &Error) {
    tracing::warn!(group, %error, "a scheduling pass failed and is tried again");
    core.sokovan.forget(group);
}

/// Has all groups know their sessions before any of them makes a pass: owners have limits for all groups together. Whether they do;
/// nobody waits for a group whose records make no sense.
async fn open(core: &Arc<Core>, broken: &mut BTreeSet<String>) -> bool {
    for group in unopened(core, broken) {
        if let Err(error) = follow(core, &group).await {
            failed(core, &group, &error);
            if error.kind().is_retryable() {
                return false;
            }
            broken.insert(group);
        }
    }
    true
}

fn unopened(core: &Core, broken: &BTreeSet<String>) -> Vec<String> {
    let mut groups = core.registry.groups();
    groups.retain(|group| !core.sokovan.has(group) && !broken.contains(group));
    groups
}

/// One pass over a group; says after which time to look again even if nothing happens.
async fn pass(core: &Arc<Core>, group: &str, broken: &BTreeSet<String>) -> Result<Option<Duration>> {
    follow(core, group).await?;
    if !unopened(core, broken).is_empty() {
        core.groups.mark(group); // all was forgotten meanwhile: this manager did not plan for a while
        return Ok(None);
    }
    if core.doubt.is_raised() {
        return Ok(Some(RETRY_PAUSE)); // what was placed last may be there: the resync that tells has the groups looked at
    }
    let (plan, others) = core.sokovan.pass(group, core.now());
    mark(core, others);
    if !plan.placements.is_empty() {
        tracing::debug!(group, placed = plan.placements.len(), "scheduling pass");
        core.turns.note(group, core.sokovan.with(group, HotGroup::take_turns).unwrap_or_default());
    }
    let given_up =
        join_all(plan.given_up.iter().map(|given_up| preempt::give_up(core, group, given_up))).await;
    join_all(plan.placements.iter().map(|placement| place(core, group, placement))).await;
    let preempted =
        join_all(plan.preemptions.iter().map(|preempted| preempt::preempt(core, group, preempted))).await;
    join_all(plan.cancellations.iter().map(|cancellation| cancel(core, cancellation))).await;
    let later = tell(core, group).await;
    let at = plan.wake_at.map(|at| (at - core.now()).to_std().unwrap_or_default());
    let again = given_up.into_iter().chain(preempted).any(|done| !done).then_some(RETRY_PAUSE);
    Ok([at, later, again].into_iter().flatten().min())
}

fn mark(core: &Core, groups: Vec<String>) {
    for group in groups {
        core.groups.mark(&group);
    }
}

/// Brings the group up to date.
async fn follow(core: &Arc<Core>, group: &str) -> Result<()> {
    let version = core.agents.version();
    let agents = match core.sokovan.with(group, |hot| hot.has_agents(version)) {
        Some(true) => None,
        _ => Some(agents(core, group, version).await?),
    };
    let directory = core.identities.directory().await?;
    let settings = core.settings.get(&*core.backends.config).await;
    let lookback = lookback(directory.resource_groups.get(group), &settings);
    if let Some(lookback) = lookback {
        history::open(core, group, lookback).await;
    }
    // The inbox is open before memory is read, so that nothing falls between the two.
    let mut notes = core.inbox.take(group);
    let is_new =
        agents.as_ref().is_some_and(|agents| core.sokovan.open(group, &directory, &settings, &agents.types));
    if is_new {
        notes.sessions = everyone(core, group);
    }
    let mut facts = facts(core, group, directory, settings, agents, notes).await?;
    if is_new {
        facts.turns = turns(core, group).await;
    }
    if let Some(lookback) = lookback {
        let living = || core.registry.of_group(group);
        let interval = TimeDelta::from_std(core.options.usage_interval).unwrap_or(TimeDelta::MAX);
        facts.history = core.histories.news(group, is_new, living, lookback, interval, facts.now);
    }
    mark(core, core.sokovan.follow(&facts)?);
    Ok(())
}

/// Whose turn it is in a new group. Without the settings it begins anew.
async fn turns(core: &Core, group: &str) -> BTreeMap<String, AgentId> {
    let turns = core.turns.read(group, &*core.backends.config).await;
    turns.unwrap_or_else(|error| {
        tracing::warn!(group, %error, "whose turn it is cannot be read");
        BTreeMap::new()
    })
}

/// Looks at the waiting sessions of a group: at what the planning manager knows, or at what it would find.
pub(crate) async fn look<T>(core: &Arc<Core>, group: &str, look: impl Fn(&mut HotGroup) -> T) -> Result<T> {
    if core.is_leader()
        && let Some(seen) = core.sokovan.with(group, &look)
    {
        return Ok(seen);
    }
    let directory = core.identities.directory().await?;
    let settings = core.settings.get(&*core.backends.config).await;
    let make = async |name: &str, agents: AgentFacts, others: &[HotGroup]| {
        let notes = Notes { sessions: everyone(core, name), ..Notes::default() };
        let (directory, settings) = (directory.clone(), settings.clone());
        let facts = facts(core, name, directory, settings, Some(agents), notes).await?;
        let now = facts.now;
        HotGroup::afresh(&facts, others).map(|hot| (hot, now))
    };
    let version = core.agents.version();
    let mut others = Vec::new();
    for name in core.registry.groups().iter().filter(|name| *name != group) {
        let none = AgentFacts { version, agents: Vec::new(), types: core.agents.slot_types() };
        others.push(make(name, none, &[]).await?.0);
    }
    let (mut hot, now) = make(group, agents(core, group, version).await?, &others).await?;
    hot.pass(now);
    Ok(look(&mut hot))
}

fn everyone(core: &Core, group: &str) -> HashSet<SessionId> {
    core.registry.of_group(group).into_iter().map(|session| session.id).collect()
}

async fn facts<'a>(
    core: &Arc<Core>,
    name: &'a str,
    directory: Arc<Directory>,
    settings: Arc<Settings>,
    agents: Option<AgentFacts>,
    mut notes: Notes,
) -> Result<Facts<'a>> {
    let sessions: HashMap<_, _> =
        notes.sessions.iter().filter_map(|id| Some((*id, core.registry.get(*id)?))).collect();
    unheard(core, &sessions, &mut notes).await?;
    let dependencies = dependencies(core, sessions.values()).await?;
    let now = core.now();
    let (turns, history) = (BTreeMap::new(), Vec::new());
    Ok(Facts { name, now, directory, settings, turns, history, agents, notes, sessions, dependencies })
}

/// Looks up how those have ended that died after the notes were taken: the note of that is for the next pass, and who depends
/// on them must not be told that they failed.
async fn unheard(
    core: &Arc<Core>,
    living: &HashMap<SessionId, Arc<Session>>,
    notes: &mut Notes,
) -> Result<()> {
    let dead = notes.sessions.iter().filter(|id| !living.contains_key(id));
    let unheard: Vec<_> = dead.filter(|id| !notes.outcomes.contains_key(id)).copied().collect();
    for id in unheard {
        if let Some(outcome) = core.load(id).await?.as_deref().and_then(outcome) {
            notes.outcomes.insert(id, outcome);
        }
    }
    Ok(())
}

/// The agents of the group.
async fn agents(core: &Arc<Core>, group: &str, version: u64) -> Result<AgentFacts> {
    let mut images = core.images.by_agent().await?;
    let rows = core.agents.list().into_iter().filter(|agent| agent.resource_group == group);
    let agents = rows
        .map(|agent| Agent {
            schedulable: agent.schedulable
                && agent.status == AgentStatus::Alive
                && core.agents.is_reachable(&agent.id),
            images: Some(images.remove(&agent.id).unwrap_or_default()),
            labels: BTreeMap::new(),
            id: agent.id,
            architecture: agent.architecture,
            capacity: agent.capacity,
        })
        .collect();
    Ok(AgentFacts { version, agents, types: core.agents.slot_types() })
}

/// What the waiting ones of `sessions` depend on. One that has been purged can no longer succeed.
async fn dependencies(
    core: &Arc<Core>,
    sessions: impl Iterator<Item = &Arc<Session>>,
) -> Result<BTreeMap<SessionId, Dependency>> {
    let waiting = sessions.filter(|session| session.status == SessionStatus::Pending);
    let ids: BTreeSet<_> = waiting.flat_map(|session| session.spec.dependencies.iter().copied()).collect();
    let mut dependencies = BTreeMap::new();
    for id in ids {
        let session = core.load(id).await?;
        let state = match session.as_deref().map(outcome) {
            Some(None) => DependencyState::Waiting,
            Some(Some(Outcome::Succeeded)) => DependencyState::Succeeded,
            Some(Some(Outcome::Failed)) | None => DependencyState::Failed,
        };
        let name = session.map_or_else(String::new, |session| session.name.clone());
        dependencies.insert(id, Dependency { id, name, state });
    }
    Ok(dependencies)
}

/// Records a placement. One that cannot be recorded concerns its session only: that waits again.
async fn place(core: &Arc<Core>, group: &str, placement: &Placement) {
    let Placement { session: id, agents } = placement;
    let result = core
        .update_guarded(*id, true, |session, now| {
            if session.status != SessionStatus::Pending {
                return Ok(()); // cancelled meanwhile
            }
            claim::clear(session);
            session.place(agents, now)?;
            // Its kernels are asked for at once: one commit for both.
            session.advance_all(SessionStatus::Preparing, KernelStatus::Preparing, "", now)
        })
        .await;
    let is_ours = |session: &Session| {
        session.status == SessionStatus::Preparing
            && session.kernels.iter().map(|kernel| kernel.agent.as_ref()).eq(agents.iter().map(Some))
    };
    match result {
        Ok(session) if is_ours(&session) => return core.sokovan.placed(group, session),
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(session = %id, %error, "a placement is not recorded");
            if error.code() == code::OVER_CAPACITY {
                // Somebody else has placed there: memory lags behind the store.
                crate::session::commit::Absorb::doubt(core);
            }
        }
    }
    waits_again(core, group, *id);
    core.groups.mark(group);
}

/// What was decided for a session is not recorded.
pub(super) fn waits_again(core: &Core, group: &str, id: SessionId) {
    let record = core.registry.get(id).filter(|session| session.status == SessionStatus::Pending);
    core.sokovan.waits_again(group, id, record.as_deref());
    core.inbox.note(group, id, None);
}

/// Cancels a session that can never start, with the reason.
async fn cancel(core: &Arc<Core>, cancellation: &Cancellation) {
    let id = cancellation.session;
    let result = core
        .update(id, |session, now| {
            if session.status != SessionStatus::Pending {
                return Ok(());
            }
            let failed = json!([{ "name": "dependencies", "msg": cancellation.message }]);
            note(session, &cancellation.message, &failed, &json!([]), now);
            session.cancel(&cancellation.reason, now)
        })
        .await;
    if let Err(error) = result {
        tracing::warn!(session = %id, %error, "a session that cannot start is not cancelled yet");
    }
}

/// Records why sessions wait, as far as that is news. Says when to go on if some are left.
async fn tell(core: &Arc<Core>, group: &str) -> Option<Duration> {
    let news = core.sokovan.with(group, |hot| hot.take_news(REASONS_PER_PASS)).unwrap_or_default();
    let mut later = Vec::new();
    let mut due = Vec::new();
    for (id, explanation) in news {
        match core.registry.get(id).filter(|session| session.status == SessionStatus::Pending) {
            Some(session) if !is_news(&session, &explanation) => {}
            Some(session) if is_due(core, &session, &explanation) => due.push((id, explanation)),
            Some(_) => later.push((id, explanation)),
            None => {}
        }
    }
    let recorded = join_all(due.iter().map(|(id, explanation)| explain(core, *id, explanation))).await;
    later
        .extend(due.into_iter().zip(recorded).filter_map(|(reason, recorded)| (!recorded).then_some(reason)));
    core.sokovan.with(group, |hot| {
        if hot.has_news() {
            core.groups.mark(group);
        }
        let pause = (!later.is_empty()).then_some(RETRY_PAUSE);
        for (id, explanation) in later {
            hot.put_back(id, explanation);
        }
        pause
    })?
}

fn known<'a>(session: &'a Session, key: &str) -> Option<&'a Value> {
    session.status_data.get("scheduler")?.get(key)
}

fn is_news(session: &Session, explanation: &Explanation) -> bool {
    session.status_info.as_deref() != Some(info(explanation))
        || known(session, "msg") != Some(&json!(explanation.sentence()))
        || known(session, "failed_predicates") != Some(&failed_predicates(explanation))
}

/// Whether the last reason is old enough, or of another kind.
fn is_due(core: &Core, session: &Session, explanation: &Explanation) -> bool {
    let last = known(session, "last_try").and_then(Value::as_str);
    let last = last.and_then(|text| text.parse::<bai_core::Timestamp>().ok());
    session.status_info.as_deref() != Some(info(explanation))
        || last.is_none_or(|last| (core.now() - last).num_seconds() >= REASON_INTERVAL_SECS)
}

fn info(explanation: &Explanation) -> &'static str {
    match explanation.verdict {
        Verdict::Early | Verdict::Dependent | Verdict::Doomed | Verdict::Checks => "predicate-checks-failed",
        Verdict::Ready | Verdict::Impossible | Verdict::NoRoom | Verdict::HeldBack | Verdict::Claimed => {
            "no-available-instances"
        }
    }
}

fn failed_predicates(explanation: &Explanation) -> Value {
    let failed = explanation.failed.iter();
    failed.map(|failure| json!({ "name": failure.name, "msg": failure.message })).collect()
}

/// Records a reason; `false` when it has to be tried again.
async fn explain(core: &Arc<Core>, id: SessionId, explanation: &Explanation) -> bool {
    let result = core
        .update(id, |session, now| {
            if session.status != SessionStatus::Pending {
                return Ok(());
            }
            let passed: Value = explanation.passed.iter().map(|name| json!({ "name": name })).collect();
            note(session, &explanation.sentence(), &failed_predicates(explanation), &passed, now);
            session.status_info = Some(info(explanation).to_owned());
            Ok(())
        })
        .await;
    match result {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(session = %id, %error, "a reason is not recorded");
            !error.kind().is_retryable()
        }
    }
}

/// The object that old clients read (spec scheduler.md, section 8).
fn note(session: &mut Session, message: &str, failed: &Value, passed: &Value, now: bai_core::Timestamp) {
    let retries = known(session, "retries").and_then(Value::as_u64).unwrap_or(0);
    session.status_data.insert(
        "scheduler".into(),
        json!({
            "retries": retries + 1,
            "last_try": now,
            "failed_predicates": failed,
            "passed_predicates": passed,
            "msg": message,
        }),
    );
}
