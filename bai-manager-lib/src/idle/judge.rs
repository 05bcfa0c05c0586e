//! The judgement: a pure function of what is known.

use std::time::Duration;

use bai_core::identity::KeypairPolicy;
use bai_core::status::SessionType;
use bai_core::{Session, Timestamp};
use serde_json::{Map, Value, json};

use super::config::{IdleConfig, Operator, Threshold};
use super::usage::Usage;
use super::{Facts, IdleCheck, IdleChecks};

/// What all checkers together say.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    pub(super) checks: IdleChecks,
    /// Why the session has to end.
    pub(super) reason: Option<&'static str>,
}

/// One checker's word.
struct Verdict {
    check: IdleCheck,
    expired: bool,
}

/// The window of the `utilization` checker; zero is off.
pub(super) fn window(policy: &KeypairPolicy, config: &IdleConfig) -> Duration {
    of_policy(policy).unwrap_or(config.time_window)
}

/// The idle timeout of the policy; `None` when it leaves that to the cluster.
fn of_policy(policy: &KeypairPolicy) -> Option<Duration> {
    u64::try_from(policy.idle_timeout).ok().map(Duration::from_secs)
}

/// Asks every checker that is switched on.
pub(super) fn judge(facts: &Facts<'_>, usage: &Usage, config: &IdleConfig, now: Timestamp) -> Judgement {
    let mut judgement = Judgement::default();
    if facts.session.session_type == SessionType::Inference {
        return judgement;
    }
    let spared = is_spared(facts, config, now);
    let mut hear = |name, reason, verdict: Verdict| {
        if verdict.expired && !spared {
            judgement.reason.get_or_insert(reason);
        }
        judgement.checks.insert(name, verdict.check);
    };
    hear("session_lifetime", "idle-session-lifetime", lifetime(facts, now));
    if config.network_timeout {
        hear("network_timeout", "idle-timeout", network_timeout(facts, config));
    }
    if config.utilization {
        hear("utilization", "idle-utilization", utilization(facts, usage, config, now));
    }
    judgement
}

/// Whether the owner is so new that nothing of theirs is ended.
fn is_spared(facts: &Facts<'_>, config: &IdleConfig, now: Timestamp) -> bool {
    facts.user_created_at.is_some_and(|created| now < created + config.user_grace)
}

fn started(session: &Session) -> Timestamp {
    session.main().started_at.or(session.starts_at).unwrap_or(session.created_at)
}

fn lifetime(facts: &Facts<'_>, now: Timestamp) -> Verdict {
    let most = Duration::from_secs(facts.policy.max_session_lifetime);
    let age = (now - started(facts.session)).to_std().unwrap_or_default();
    expire_after((!most.is_zero()).then_some((most, age)))
}

fn network_timeout(facts: &Facts<'_>, config: &IdleConfig) -> Verdict {
    let most = of_policy(facts.policy).unwrap_or(config.threshold);
    let judged = !most.is_zero() && facts.session.session_type != SessionType::Batch;
    expire_after(facts.unused_for.filter(|_| judged).map(|unused| (most, unused)))
}

/// Over when the second span is longer than the first; without spans it is never over.
fn expire_after(spans: Option<(Duration, Duration)>) -> Verdict {
    let expired = spans.is_some_and(|(most, gone)| gone > most);
    let remaining = spans.map(|(most, gone)| remaining(most.checked_sub(gone)));
    let check = IdleCheck { remaining, remaining_time_type: "expire_after", extra: None };
    Verdict { check, expired }
}

fn remaining(left: Option<Duration>) -> f64 {
    left.map_or(-1.0, |left| left.as_secs_f64())
}

fn utilization(facts: &Facts<'_>, usage: &Usage, config: &IdleConfig, now: Timestamp) -> Verdict {
    let window = window(facts.policy, config);
    let judged_from = started(facts.session) + config.initial_grace + window;
    let compared = compare(facts.session, usage, config);
    let is_below = |(_, average, threshold): &(_, f64, f64)| average < threshold;
    let idle = match config.operator {
        Operator::And => !compared.is_empty() && compared.iter().all(is_below),
        Operator::Or => compared.iter().any(is_below),
    };
    let expired = idle && !window.is_zero() && now >= judged_from && usage.is_full(now);
    let resources: Map<String, Value> = compared
        .iter()
        .map(|(metric, average, threshold)| ((*metric).clone(), json!([average, threshold])))
        .collect();
    let check = IdleCheck {
        remaining: (!window.is_zero()).then(|| remaining((judged_from - now).to_std().ok())),
        remaining_time_type: "grace_period",
        extra: (!resources.is_empty()).then(
            || json!({ "thresholds_check_operator": config.operator.as_str(), "resources": resources }),
        ),
    };
    Verdict { check, expired }
}

/// Metric, average and threshold of all that the session has asked for, that has a threshold, and that was measured.
fn compare<'a>(session: &Session, usage: &Usage, config: &'a IdleConfig) -> Vec<(&'a String, f64, f64)> {
    let requested = session.requested();
    let asked_for = |metric: &str, threshold: &Threshold| {
        let family = threshold.resource.as_deref().unwrap_or_else(|| family(metric));
        requested.iter().any(|(slot, amount)| {
            let name = slot.as_str();
            !amount.is_zero() && (name == family || name.split('.').next() == Some(family))
        })
    };
    let thresholds = config.thresholds.iter().filter(|(metric, threshold)| asked_for(metric, threshold));
    thresholds
        .filter_map(|(metric, threshold)| Some((metric, usage.average(metric)?, threshold.average?)))
        .collect()
}

/// The slot family of a metric: `cuda_mem` belongs to `cuda`.
fn family(metric: &str) -> &str {
    metric.split('_').next().unwrap_or(metric)
}

#[cfg(test)]
mod tests;
