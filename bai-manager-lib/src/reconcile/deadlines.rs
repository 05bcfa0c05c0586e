//! How long a session may stay in each status that is not an end.

use std::time::Duration;

use bai_core::port::ConfigStore;
use bai_core::units::TimeSpan;
use bai_core::{Result, SessionStatus};

use crate::manager::ManagerOptions;

/// Root of the cluster's own settings, by name of the status (spec scheduler.md, section 14 and W-18).
const PREFIX: &str = "config/session/hang-tolerance/threshold/";

/// Deadlines by status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deadlines {
    pub(crate) preparing: Duration,
    pub(crate) pulling: Duration,
    pub(crate) restarting: Duration,
    pub(crate) terminating: Duration,
}

impl Deadlines {
    /// Those of the manager's options.
    pub(crate) fn of(options: &ManagerOptions) -> Self {
        Self {
            preparing: options.preparing_timeout,
            pulling: options.pulling_timeout,
            restarting: options.restarting_timeout,
            terminating: options.terminating_timeout,
        }
    }

    /// The same with what the cluster's settings say instead. One that cannot be read is passed over.
    ///
    /// # Errors
    /// `Unavailable` when the settings cannot be reached.
    pub(crate) async fn read(options: &ManagerOptions, config: &dyn ConfigStore) -> Result<Self> {
        let mut deadlines = Self::of(options);
        for entry in config.get_prefix(PREFIX).await? {
            let name = entry.key.strip_prefix(PREFIX).unwrap_or_default();
            let span = entry.value.trim().parse::<TimeSpan>();
            let deadline = name.parse::<SessionStatus>().ok().and_then(|status| deadlines.of_status(status));
            match (deadline, span) {
                (Some(deadline), Ok(span)) if !span.is_zero() => *deadline = span.to_duration(),
                _ => tracing::warn!(
                    key = entry.key,
                    value = entry.value,
                    "not a deadline of a status: ignored"
                ),
            }
        }
        Ok(deadlines)
    }

    fn of_status(&mut self, status: SessionStatus) -> Option<&mut Duration> {
        match status {
            SessionStatus::Scheduled | SessionStatus::Preparing => Some(&mut self.preparing),
            SessionStatus::Pulling => Some(&mut self.pulling),
            SessionStatus::Restarting => Some(&mut self.restarting),
            SessionStatus::Terminating => Some(&mut self.terminating),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use bai_core::memory::MemoryConfig;

    use super::*;

    #[tokio::test]
    async fn the_cluster_sets_what_it_names_and_nothing_else() {
        let config = MemoryConfig::new();
        for (name, value) in [
            ("PREPARING", "10m"),
            ("TERMINATING", "1h"),
            ("PULLING", "soon"),
            ("RUNNING", "1s"),
            ("RESTARTING", "0"),
        ] {
            config.put(&format!("{PREFIX}{name}"), value).await.unwrap();
        }
        let options = ManagerOptions::default();
        let deadlines = Deadlines::read(&options, &config).await.unwrap();
        let expected = Deadlines {
            preparing: Duration::from_mins(10),
            terminating: Duration::from_hours(1),
            ..Deadlines::of(&options)
        };
        assert_eq!(deadlines, expected);
    }
}
