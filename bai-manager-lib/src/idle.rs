//! Idle checks (spec scheduler.md, section 13.1): sessions that nobody uses end by themselves.
//!
//! | checker | a session ends when |
//! |---|---|
//! | `network_timeout` | its last run of code ended longer ago than its owner's `idle_timeout` |
//! | `session_lifetime` | it has run longer than its owner's `max_session_lifetime` |
//! | `utilization` | over a whole window it used less of its resources than the thresholds |
//!
//! A checker that lacks data does not judge: a silent agent, a manager that has just started or a metric that nobody reports
//! never end a session.

mod config;
mod judge;
mod usage;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bai_core::identity::KeypairPolicy;
use bai_core::{Session, SessionId, Timestamp};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

pub(crate) use config::{IdleConfig, PREFIX};
use usage::Usage;

/// What one checker says about a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IdleCheck {
    /// Seconds until the session may end because of this checker; -1 when that is over, `None` when it is switched off or
    /// has no data.
    pub remaining: Option<f64>,
    /// What ends then: `expire_after` the life of the session, `grace_period` the time in which nothing is judged.
    pub remaining_time_type: &'static str,
    /// For `utilization`: the operator, and per metric its average and threshold in percent.
    pub extra: Option<Value>,
}

impl IdleCheck {
    const UNKNOWN: Self = Self { remaining: None, remaining_time_type: "expire_after", extra: None };
}

/// The checkers that are switched on, by name.
pub type IdleChecks = BTreeMap<&'static str, IdleCheck>;

/// What is known about one session besides its record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) session: &'a Session,
    pub(crate) policy: &'a KeypairPolicy,
    pub(crate) user_created_at: Option<Timestamp>,
    /// How long no code has run in it, as its agent last said; zero while code runs, `None` when nothing was said.
    pub(crate) unused_for: Option<Duration>,
    /// Metric to percent of what was allocated, averaged over the kernels, as last measured.
    pub(crate) measured: &'a BTreeMap<String, f64>,
}

/// What is remembered of all running sessions from one look to the next.
#[derive(Debug, Default)]
pub(crate) struct IdleBook {
    pages: Mutex<HashMap<SessionId, Page>>,
}

#[derive(Debug, Default)]
struct Page {
    usage: Usage,
    checks: IdleChecks,
}

impl IdleBook {
    /// What the checkers last said of a running session. Before the first look only the one that is always on speaks, and
    /// says that it knows nothing.
    pub(crate) fn checks(&self, session: SessionId) -> IdleChecks {
        let pages = self.pages.lock();
        let checks = pages.get(&session).map(|page| page.checks.clone());
        checks.unwrap_or_else(|| [("session_lifetime", IdleCheck::UNKNOWN)].into_iter().collect())
    }

    /// Looks at a session: notes what was measured, and says why it has to end, if it has to.
    pub(crate) fn look(
        &self,
        facts: &Facts<'_>,
        config: &IdleConfig,
        now: Timestamp,
    ) -> Option<&'static str> {
        let mut pages = self.pages.lock();
        let page = pages.entry(facts.session.id).or_default();
        let window = judge::window(facts.policy, config);
        page.usage.note(facts.measured, window, now);
        let judgement = judge::judge(facts, &page.usage, config, now);
        page.checks = judgement.checks;
        judgement.reason
    }

    /// Forgets all sessions but those that `living` knows.
    pub(crate) fn keep(&self, living: impl Fn(SessionId) -> bool) {
        self.pages.lock().retain(|id, _| living(*id));
    }
}
