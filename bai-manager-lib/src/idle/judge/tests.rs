use std::collections::BTreeMap;

use bai_testkit::fixture::{at, policy, session, slots};

use super::*;

const WINDOW: i64 = 1800;

/// A session that has run since `at(0)`, with what is known about it.
struct Case {
    session: Session,
    policy: KeypairPolicy,
    config: IdleConfig,
    unused: Option<u64>,
    user_created_at: Option<Timestamp>,
    usage: Usage,
}

impl Case {
    fn new() -> Self {
        let mut session = session("s");
        session.kernels[0].started_at = Some(at(0));
        let config = IdleConfig { network_timeout: true, ..IdleConfig::default() };
        Self {
            session,
            policy: policy("p"),
            config,
            unused: Some(0),
            user_created_at: None,
            usage: Usage::default(),
        }
    }

    /// One that is checked for its utilization only, and used like this for a whole window.
    fn using(metrics: &[(&str, f64)], thresholds: &[(&str, f64)]) -> Self {
        let mut case = Self::new();
        case.config.network_timeout = false;
        case.config.utilization = true;
        case.config.thresholds = thresholds
            .iter()
            .map(|(metric, average)| {
                ((*metric).to_owned(), Threshold { average: Some(*average), resource: None })
            })
            .collect();
        let metrics = metrics.iter().map(|(metric, value)| ((*metric).to_owned(), *value)).collect();
        for tick in 0..=(2 * WINDOW / 15) {
            case.usage.note(&metrics, window(&case.policy, &case.config), at(tick * 15));
        }
        case
    }

    fn at(&self, seconds: i64) -> Judgement {
        let facts = Facts {
            session: &self.session,
            policy: &self.policy,
            user_created_at: self.user_created_at,
            unused_for: self.unused.map(Duration::from_secs),
            measured: &BTreeMap::new(),
        };
        judge(&facts, &self.usage, &self.config, at(seconds))
    }

    fn reason(&self) -> Option<&'static str> {
        self.at(2 * WINDOW).reason
    }
}

#[test]
fn an_unused_session_ends_after_the_timeout_of_its_policy() {
    let mut case = Case::new();
    case.unused = Some(1700);
    let judgement = case.at(5000);
    assert_eq!(judgement.reason, None);
    assert_eq!(judgement.checks["network_timeout"].remaining, Some(100.0));
    case.unused = Some(1801);
    let judgement = case.at(5000);
    assert_eq!(judgement.reason, Some("idle-timeout"));
    assert_eq!(judgement.checks["network_timeout"].remaining, Some(-1.0));
}

#[test]
fn the_timeout_of_the_cluster_counts_where_the_policy_has_none_and_zero_is_off() {
    let mut case = Case::new();
    case.policy.idle_timeout = -1;
    case.unused = Some(601);
    assert_eq!(case.reason(), Some("idle-timeout"));
    case.config.threshold = Duration::ZERO;
    assert_eq!(case.reason(), None);
    case.config.threshold = Duration::from_secs(1);
    case.policy.idle_timeout = 0;
    assert_eq!(case.reason(), None);
    assert_eq!(case.at(0).checks["network_timeout"].remaining, None);
}

#[test]
fn without_word_from_the_agent_nothing_is_judged() {
    let mut case = Case::new();
    case.unused = None;
    let judgement = case.at(1_000_000);
    assert_eq!(judgement.reason, None);
    assert_eq!(judgement.checks["network_timeout"].remaining, None);
}

#[test]
fn batch_sessions_have_no_idle_timeout_and_inference_is_never_checked() {
    let mut case = Case::new();
    case.unused = Some(100_000);
    case.session.session_type = SessionType::Batch;
    assert_eq!(case.reason(), None);
    case.session.session_type = SessionType::Inference;
    case.policy.max_session_lifetime = 1;
    assert_eq!(case.at(100_000).reason, None);
    assert!(case.at(100_000).checks.is_empty());
}

#[test]
fn the_lifetime_is_checked_always_and_counts_from_the_start() {
    let mut case = Case::new();
    case.config = IdleConfig::default();
    assert_eq!(case.at(1_000_000).checks["session_lifetime"].remaining, None);
    case.policy.max_session_lifetime = 60;
    case.session.kernels[0].started_at = Some(at(100));
    assert_eq!(case.at(130).checks["session_lifetime"].remaining, Some(30.0));
    assert_eq!(case.at(161).reason, Some("idle-session-lifetime"));
    assert_eq!(case.at(161).checks.len(), 1, "the others are switched off");
}

#[test]
fn sessions_of_a_new_user_are_spared() {
    let mut case = Case::new();
    case.unused = Some(10_000);
    case.user_created_at = Some(at(0));
    case.config.user_grace = Duration::from_secs(100);
    assert_eq!(case.at(99).reason, None);
    assert_eq!(case.at(101).reason, Some("idle-timeout"));
}

#[test]
fn any_resource_in_use_saves_a_session_unless_told_otherwise() {
    let limits = [("cpu_util", 10.0), ("mem", 10.0)];
    assert_eq!(Case::using(&[("cpu_util", 1.0), ("mem", 1.0)], &limits).reason(), Some("idle-utilization"));
    let mut half = Case::using(&[("cpu_util", 1.0), ("mem", 50.0)], &limits);
    assert_eq!(half.reason(), None);
    half.config.operator = Operator::Or;
    assert_eq!(half.reason(), Some("idle-utilization"));
    let extra = half.at(2 * WINDOW).checks["utilization"].extra.clone().unwrap();
    let expected = json!({
        "thresholds_check_operator": "or",
        "resources": { "cpu_util": [1.0, 10.0], "mem": [50.0, 10.0] },
    });
    assert_eq!(extra, expected);
}

#[test]
fn a_window_that_is_not_full_is_not_judged() {
    let mut case = Case::using(&[("mem", 1.0)], &[("mem", 10.0)]);
    case.session.kernels[0].started_at = Some(at(WINDOW));
    let judgement = case.at(2 * WINDOW);
    assert_eq!(judgement.reason, None);
    assert_eq!(judgement.checks["utilization"].remaining, Some(300.0), "the initial grace period");
    case.session.kernels[0].started_at = Some(at(0));
    case.usage = Usage::default();
    assert_eq!(case.reason(), None, "the manager has just started");
}

#[test]
fn what_was_not_asked_for_or_not_measured_is_not_judged() {
    let gpu = [("cuda_util", 10.0)];
    assert_eq!(Case::using(&[("cuda_util", 0.0)], &gpu).reason(), None, "no device was asked for");
    let mut case = Case::using(&[("mem", 0.0)], &gpu);
    case.session.kernels[0].requested =
        slots(1, 1).iter().map(|(name, amount)| (name.clone(), *amount)).collect();
    assert_eq!(case.reason(), None, "nobody measured it");
    let mut named = Case::using(&[("busy", 0.0)], &[("busy", 10.0)]);
    assert_eq!(named.reason(), None, "its name says nothing");
    named.config.thresholds.get_mut("busy").unwrap().resource = Some("mem".into());
    assert_eq!(named.reason(), Some("idle-utilization"));
}

#[test]
fn a_policy_without_idle_timeout_has_no_utilization_window() {
    let mut case = Case::using(&[("mem", 0.0)], &[("mem", 10.0)]);
    case.policy.idle_timeout = 0;
    let judgement = case.at(10 * WINDOW);
    assert_eq!((judgement.reason, judgement.checks["utilization"].remaining), (None, None));
}
