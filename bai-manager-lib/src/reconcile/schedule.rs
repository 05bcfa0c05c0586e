//! The queue of a resource group: snapshot, plan, guarded commits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bai_core::error::code;
use bai_core::{AgentId, Result, Session, SessionId, SessionStatus};
use bai_scheduler::{Explanation, Failure};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::snapshot;
use crate::manager::core::Core;

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
    let directory = core.identities.directory().await?;
    let mut scheduler = snapshot::group(core, group, &directory, &waiting).await?;
    let decided = scheduler.pass(core.now());
    tracing::debug!(group, pending = waiting.len(), placed = decided.placements.len(), "scheduling pass");
    join_all(decided.placements.iter().map(|placement| place(core, placement.session, &placement.agents)))
        .await;
    join_all(decided.cancellations.iter().map(|doomed| cancel(core, doomed.session, &doomed.message))).await;
    let by_id: HashMap<_, _> = waiting.iter().map(|session| (session.id, session)).collect();
    let due = decided.unplaced.iter().filter(|unplaced| {
        by_id.get(&unplaced.session).is_some_and(|session| is_due(core, session, &unplaced.explanation))
    });
    join_all(
        due.take(REASONS_PER_PASS).map(|unplaced| explain(core, unplaced.session, &unplaced.explanation)),
    )
    .await;
    Ok(())
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
fn is_due(core: &Core, session: &Session, reason: &Explanation) -> bool {
    let Some(known) = session.status_data.get("scheduler") else { return true };
    let last = known
        .get("last_try")
        .and_then(Value::as_str)
        .and_then(|text| text.parse::<bai_core::Timestamp>().ok());
    let old = last.is_none_or(|last| (core.now() - last).num_seconds() >= REASON_INTERVAL_SECS);
    let same = session.status_info.as_deref() == Some(info(reason))
        && known.get("msg") == Some(&json!(reason.sentence()))
        && known.get("failed_predicates") == Some(&failed_predicates(&reason.failed));
    !same && (old || session.status_info.as_deref() != Some(info(reason)))
}

fn info(reason: &Explanation) -> &'static str {
    if reason.failed.is_empty() { "no-available-instances" } else { "predicate-checks-failed" }
}

fn failed_predicates(failed: &[Failure]) -> Value {
    failed.iter().map(|failure| json!({ "name": failure.name, "msg": failure.message })).collect()
}

/// Records why a session still waits.
async fn explain(core: &Arc<Core>, id: SessionId, reason: &Explanation) {
    let verdict = Verdict {
        info: info(reason),
        message: reason.sentence(),
        failed: failed_predicates(&reason.failed),
        passed: reason.passed.iter().map(|name| json!({ "name": name })).collect(),
    };
    record(core, id, verdict, false).await;
}

/// Cancels a session that can never be started.
async fn cancel(core: &Arc<Core>, id: SessionId, message: &str) {
    let verdict = Verdict {
        info: "predicate-checks-failed",
        message: message.to_owned(),
        failed: json!([{ "name": "dependencies", "msg": message }]),
        passed: json!([]),
    };
    record(core, id, verdict, true).await;
}

/// What clients read about a session that waits (spec scheduler.md, section 8).
struct Verdict {
    info: &'static str,
    message: String,
    failed: Value,
    passed: Value,
}

async fn record(core: &Arc<Core>, id: SessionId, verdict: Verdict, cancel: bool) {
    let result = core
        .update(id, |session, now| {
            if session.status != SessionStatus::Pending {
                return Ok(());
            }
            let known = session.status_data.get("scheduler");
            let retries = known.and_then(|known| known.get("retries")).and_then(Value::as_u64).unwrap_or(0);
            session.status_data.insert(
                "scheduler".into(),
                json!({
                    "retries": retries + 1,
                    "last_try": now,
                    "failed_predicates": verdict.failed,
                    "passed_predicates": verdict.passed,
                    "msg": verdict.message,
                }),
            );
            session.status_info = Some(verdict.info.to_owned());
            if cancel { session.cancel("dependency-failed", now) } else { Ok(()) }
        })
        .await;
    if let Err(error) = result {
        tracing::debug!(session = %id, %error, "a reason is not recorded: the next pass repeats it");
    }
}
