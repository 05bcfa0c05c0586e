//! The cluster's settings below `config/idle` (spec misc-services.md, section 7).

use std::collections::BTreeMap;
use std::time::Duration;

use bai_core::port::config::ConfigEntry;
use bai_core::units::TimeSpan;

/// Root of the keys.
pub(crate) const PREFIX: &str = "config/idle/";

/// How the thresholds of several metrics are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Operator {
    /// Idle when all metrics are below: any resource in use saves the session.
    #[default]
    And,
    /// Idle when any metric is below.
    Or,
}

impl Operator {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::And => "and",
            Self::Or => "or",
        }
    }
}

/// Below which average of a metric a session is idle.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Threshold {
    /// Percent; `None` when the metric is not looked at.
    pub(crate) average: Option<f64>,
    /// Slot the metric belongs to, where its name does not say.
    pub(crate) resource: Option<String>,
}

/// All settings, with the documented defaults.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IdleConfig {
    pub(crate) network_timeout: bool,
    pub(crate) utilization: bool,
    /// Of `network_timeout`, where the policy has none; zero is off.
    pub(crate) threshold: Duration,
    /// Of `utilization`, where the policy has none; zero is off.
    pub(crate) time_window: Duration,
    /// Of `utilization`: not judged for so long after the start.
    pub(crate) initial_grace: Duration,
    pub(crate) operator: Operator,
    /// By metric, such as `cpu_util`.
    pub(crate) thresholds: BTreeMap<String, Threshold>,
    /// A user's sessions are not judged for so long after the user was created.
    pub(crate) user_grace: Duration,
}

impl Default for IdleConfig {
    fn default() -> Self {
        Self {
            network_timeout: false,
            utilization: false,
            threshold: Duration::from_mins(10),
            time_window: Duration::from_mins(10),
            initial_grace: Duration::from_mins(5),
            operator: Operator::And,
            thresholds: BTreeMap::new(),
            user_grace: Duration::ZERO,
        }
    }
}

impl IdleConfig {
    /// Reads the keys below [`PREFIX`]. A value that cannot be read leaves its default in place, and is returned by name.
    pub(crate) fn read(entries: &[ConfigEntry]) -> (Self, Vec<String>) {
        let mut config = Self::default();
        let wrong = entries.iter().filter(|entry| {
            let key = entry.key.strip_prefix(PREFIX).unwrap_or(&entry.key);
            config.set(key, entry.value.trim()).is_none()
        });
        let wrong = wrong.map(|entry| entry.key.clone()).collect();
        (config, wrong)
    }

    /// `None` when `value` cannot be read. Keys of others are passed over.
    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "enabled" => {
                let has = |names: &[&str]| value.split(',').any(|name| names.contains(&name.trim()));
                // The comment in the original configuration names the first checker differently.
                self.network_timeout = has(&["network_timeout", "timeout"]);
                self.utilization = has(&["utilization"]);
            }
            "checkers/network_timeout/threshold" => self.threshold = span(value)?,
            "checkers/utilization/time-window" => self.time_window = span(value)?,
            "checkers/utilization/initial-grace-period" => self.initial_grace = span(value)?,
            "checkers/utilization/thresholds-check-operator" => self.operator = operator(value)?,
            "checkers/user_grace_period/user_initial_grace_period" => self.user_grace = span(value)?,
            _ => return self.set_threshold(key, value),
        }
        Some(())
    }

    fn set_threshold(&mut self, key: &str, value: &str) -> Option<()> {
        let Some((metric, field)) = key
            .strip_prefix("checkers/utilization/resource-thresholds/")
            .and_then(|rest| rest.split_once('/'))
        else {
            return Some(());
        };
        let threshold = self.thresholds.entry(metric.to_owned()).or_default();
        match field {
            "average" if is_null(value) => threshold.average = None,
            "average" => {
                threshold.average = Some(value.parse().ok().filter(|average: &f64| average.is_finite())?);
            }
            "name" => threshold.resource = Some(value.to_owned()),
            _ => {}
        }
        Some(())
    }
}

fn operator(value: &str) -> Option<Operator> {
    match value {
        "and" => Some(Operator::And),
        "or" => Some(Operator::Or),
        _ => None,
    }
}

/// A span of time; nothing, null and infinity switch what it limits off, and so does zero.
fn span(value: &str) -> Option<Duration> {
    if is_null(value) || matches!(value.to_ascii_lowercase().as_str(), "inf" | "infinite" | "infinity") {
        return Some(Duration::ZERO);
    }
    value.parse::<TimeSpan>().ok().map(TimeSpan::to_duration)
}

fn is_null(value: &str) -> bool {
    matches!(value, "" | "null" | "None")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (IdleConfig, Vec<String>) {
        let entry = |(key, value): &(&str, &str)| ConfigEntry {
            key: format!("{PREFIX}{key}"),
            value: (*value).to_owned(),
            revision: 1,
        };
        IdleConfig::read(&pairs.iter().map(entry).collect::<Vec<_>>())
    }

    #[test]
    fn nothing_but_the_lifetime_is_checked_unless_enabled() {
        let (config, wrong) = read(&[]);
        assert_eq!((config, wrong.len()), (IdleConfig::default(), 0));
        let (config, _) = read(&[("enabled", "timeout, utilization")]);
        assert!(config.network_timeout && config.utilization);
    }

    #[test]
    fn the_documented_keys_are_read() {
        let (config, wrong) = read(&[
            ("enabled", "utilization"),
            ("checkers/network_timeout/threshold", "1h"),
            ("checkers/utilization/time-window", "infinite"),
            ("checkers/utilization/initial-grace-period", "90"),
            ("checkers/utilization/thresholds-check-operator", "or"),
            ("checkers/utilization/resource-thresholds/cpu_util/average", "12.5"),
            ("checkers/utilization/resource-thresholds/mem/average", "null"),
            ("checkers/utilization/resource-thresholds/npu/name", "atom.device"),
            ("checkers/user_grace_period/user_initial_grace_period", "1d"),
            ("app-streaming-packet-timeout", "5m"),
        ]);
        assert_eq!(wrong, Vec::<String>::new());
        assert_eq!(config.threshold, Duration::from_hours(1));
        assert_eq!(config.time_window, Duration::ZERO);
        assert_eq!(config.initial_grace, Duration::from_secs(90));
        assert_eq!(config.operator, Operator::Or);
        assert_eq!(config.thresholds["cpu_util"].average, Some(12.5));
        assert_eq!(config.thresholds["mem"].average, None);
        assert_eq!(config.thresholds["npu"].resource.as_deref(), Some("atom.device"));
        assert_eq!(config.user_grace, Duration::from_hours(24));
    }

    #[test]
    fn what_cannot_be_read_is_named_and_changes_nothing() {
        let keys =
            ["checkers/network_timeout/threshold", "checkers/utilization/resource-thresholds/mem/average"];
        let (config, wrong) = read(&keys.map(|key| (key, "soon")));
        assert_eq!(wrong, keys.map(|key| format!("{PREFIX}{key}")));
        assert_eq!(config.threshold, IdleConfig::default().threshold);
    }
}
