//! The two back ends that every rule holds on.

use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Process,
    Docker,
}

impl Backend {
    /// Whether it can be tested here; a missing engine is a failure where `BAI_TEST_REQUIRE` is set.
    pub(crate) fn is_available(self) -> bool {
        self == Self::Process || bai_testkit::service_url("DOCKER_HOST").is_some()
    }

    /// As the command line and the configuration spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Docker => "docker",
        }
    }

    /// About the time that ten creations at once take.
    pub(crate) fn creation_window(self) -> Duration {
        match self {
            Self::Process => Duration::from_millis(400),
            Self::Docker => Duration::from_millis(2500),
        }
    }
}
