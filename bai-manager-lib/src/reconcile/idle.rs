//! Has the idle checkers look at all running sessions.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bai_core::identity::{Keypair, KeypairPolicy};
use bai_core::port::store::Directory;
use bai_core::{AccessKey, Kernel, Result, Session, SessionStatus, Timestamp, UserId};
use serde_json::Value;

use crate::idle::{Facts, IdleConfig};
use crate::manager::core::Core;
use crate::session::failure::terminate;

/// Looks at intervals. Every manager does, so that each can tell what remains; the one that plans also ends.
pub(crate) async fn run(core: Arc<Core>) {
    let mut complained = Vec::new();
    loop {
        tokio::select! {
            () = core.tasks.stopped() => return,
            () = tokio::time::sleep(core.options.idle_interval) => {}
        }
        if let Err(error) = look(&core, &mut complained).await {
            tracing::warn!(%error, "the idle checkers cannot look at the sessions now");
        }
    }
}

/// Looks once. `complained` holds the settings already complained about.
async fn look(core: &Arc<Core>, complained: &mut Vec<String>) -> Result<()> {
    let entries = core.backends.config.get_prefix(crate::idle::PREFIX).await?;
    let (config, wrong) = IdleConfig::read(&entries);
    if wrong != *complained {
        for key in &wrong {
            tracing::warn!(key, "a setting of the idle checkers cannot be read: its default is used");
        }
        *complained = wrong;
    }
    let directory = core.identities.directory().await?;
    let owners = Owners::of(&directory);
    let running: Vec<_> =
        core.registry.all().into_iter().filter(|session| session.status.is_running()).collect();
    let ids: HashSet<_> = running.iter().map(|session| session.id).collect();
    core.idle.keep(|id| ids.contains(&id));
    for session in running {
        if let Some(reason) = judge(core, &session, &owners, &config)
            && core.is_leader()
        {
            end(core, &session, reason).await;
        }
    }
    Ok(())
}

/// Policies and ages of the owners of sessions.
struct Owners<'a> {
    policies: HashMap<&'a AccessKey, &'a KeypairPolicy>,
    created: HashMap<UserId, Timestamp>,
}

impl<'a> Owners<'a> {
    fn of(directory: &'a Directory) -> Self {
        let policy = |keypair: &'a Keypair| {
            Some((&keypair.access_key, directory.policies.get(&keypair.resource_policy)?))
        };
        Self {
            policies: directory.keypairs.iter().filter_map(policy).collect(),
            created: directory.users.iter().map(|user| (user.id, user.created_at)).collect(),
        }
    }
}

fn judge(core: &Core, session: &Session, owners: &Owners<'_>, config: &IdleConfig) -> Option<&'static str> {
    let main = session.main();
    let facts = Facts {
        session,
        policy: owners.policies.get(&session.owner.access_key)?,
        user_created_at: owners.created.get(&session.owner.user_id).copied(),
        unused_for: main.agent.as_ref().and_then(|agent| core.agents.unused_for(agent, main.id)),
        measured: &measured(core, session),
    };
    core.idle.look(&facts, config, core.now())
}

async fn end(core: &Arc<Core>, session: &Session, reason: &str) {
    tracing::info!(session = %session.id, reason, "nobody uses a session: it is ended");
    let ended = core
        .update(session.id, |session, now| match session.status {
            SessionStatus::Running | SessionStatus::RunningDegraded => terminate(session, reason, now),
            _ => Ok(()),
        })
        .await;
    if let Err(error) = ended {
        tracing::warn!(session = %session.id, %error, "an idle session is not ended yet");
    }
}

/// Metric to percent of what was allocated, averaged over the kernels that report it.
fn measured(core: &Core, session: &Session) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::<String, (f64, f64)>::new();
    for kernel in session.kernels.iter().filter(|kernel| !kernel.status.is_dead()) {
        let report = kernel.agent.as_ref().and_then(|agent| core.agents.last_report(agent, kernel.id));
        for (metric, value) in report.iter().filter_map(|report| report.stats.as_ref()).flatten() {
            if let Some(percent) = percent(metric, value, kernel) {
                let (sum, count) = sums.entry(metric.clone()).or_default();
                *sum += percent;
                *count += 1.0;
            }
        }
    }
    sums.into_iter().map(|(metric, (sum, count))| (metric, sum / count)).collect()
}

/// The share of what the kernel holds that a metric shows in use. `cpu_util` counts one busy core as 100 %.
fn percent(metric: &str, value: &Value, kernel: &Kernel) -> Option<f64> {
    let percent: f64 = value.get("pct")?.as_str()?.parse().ok()?;
    if metric != "cpu_util" {
        return Some(percent);
    }
    let cores: f64 = kernel.allocated.get("cpu").to_string().parse().ok()?;
    (cores > 0.0).then(|| percent / cores)
}
