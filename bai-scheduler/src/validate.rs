//! The checks a session passes before an agent is looked for (spec scheduler.md, section 8). All of them run; their names
//! and texts are what clients show.

use bai_core::Timestamp;
use bai_core::slots::ResourceSlots;
use bai_core::status::SessionType;

use crate::quota::{Holder, Quota, Quotas};
use crate::snapshot::{Dependency, DependencyState, Pending};

/// Why a session was not placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reasons {
    /// What kind of obstacle it was.
    pub refusal: Refusal,
    /// Checks that failed.
    pub failed: Vec<Failure>,
    /// Names of the checks that passed.
    pub passed: Vec<&'static str>,
    /// The obstacle in one sentence.
    pub message: String,
}

/// Kinds of obstacles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A check failed; it may pass later.
    Checks,
    /// No agent has room, or none fits at all.
    NoAgent,
    /// It can never be started: something it depends on has failed.
    Hopeless,
}

/// A check that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Name of the check.
    pub name: &'static str,
    /// Why, in words.
    pub message: String,
}

type Outcome = (&'static str, Option<String>);

/// The names of the passed checks, or the reasons of a refusal.
pub(crate) fn validate(
    session: &Pending,
    quotas: &Quotas,
    now: Timestamp,
) -> Result<Vec<&'static str>, Reasons> {
    let mut outcomes = vec![
        ("reserved_time", reserved_time(session, now)),
        ("dependencies", dependencies(session)),
        ("concurrency", concurrency(session, quotas)),
    ];
    outcomes.extend(amounts(session, quotas));

    let passed = outcomes.iter().filter(|(_, failure)| failure.is_none()).map(|(name, _)| *name).collect();
    let failed: Vec<_> = outcomes
        .into_iter()
        .filter_map(|(name, failure)| Some(Failure { name, message: failure? }))
        .collect();
    if failed.is_empty() {
        return Ok(passed);
    }
    let refusal = if is_hopeless(session) { Refusal::Hopeless } else { Refusal::Checks };
    let message = failed.iter().map(|failure| failure.message.as_str()).collect::<Vec<_>>().join("; ");
    Err(Reasons { refusal, failed, passed, message })
}

fn is_hopeless(session: &Pending) -> bool {
    session.dependencies.iter().any(|dependency| dependency.state == DependencyState::Failed)
}

fn reserved_time(session: &Pending, now: Timestamp) -> Option<String> {
    let early =
        session.session_type == SessionType::Batch && session.starts_at.is_some_and(|start| now < start);
    early.then(|| "Before start time".to_owned())
}

fn dependencies(session: &Pending) -> Option<String> {
    let list = |state: DependencyState| {
        let in_state = |dependency: &&Dependency| dependency.state == state;
        let name = |dependency: &Dependency| format!("{} ({})", dependency.name, dependency.id);
        session.dependencies.iter().filter(in_state).map(name).collect::<Vec<_>>().join(", ")
    };
    let failed = list(DependencyState::Failed);
    if !failed.is_empty() {
        return Some(format!("Dependency sessions have failed. ({failed})"));
    }
    let waiting = list(DependencyState::Waiting);
    (!waiting.is_empty()).then(|| format!("Waiting dependency sessions to finish as success. ({waiting})"))
}

fn concurrency(session: &Pending, quotas: &Quotas) -> Option<String> {
    let count = quotas.sessions.get(&session.access_key)?;
    let full = count.most > 0 && count.used >= count.most;
    full.then(|| format!("You cannot run more than {} concurrent sessions", count.most))
}

fn amounts(session: &Pending, quotas: &Quotas) -> Vec<Outcome> {
    let requested = session.requested();
    let check = |holder: Holder| {
        let excess = quotas.amounts.get(&holder).and_then(|quota| first_excess(&requested, quota));
        let message =
            excess.map(|excess| format!("Your {} resource quota is exceeded. ({excess})", holder.title()));
        (holder.check_name(), message)
    };
    Holder::of(session).into_iter().map(check).collect()
}

/// The first slot over the limit, in words. Amounts of zero never count.
fn first_excess(requested: &ResourceSlots, quota: &Quota) -> Option<String> {
    let nonzero = requested.iter().filter(|(_, amount)| !amount.is_zero());
    nonzero
        .map(|(name, amount)| (name, *amount, quota.used.get(name.as_str()), quota.limit.of(name.as_str())))
        .find(|(_, asked, used, limit)| asked.saturating_add(*used) > *limit)
        .map(|(name, asked, used, limit)| format!("{name}: {asked} asked, {used} in use, limit {limit}"))
}
