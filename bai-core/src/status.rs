//! The session and kernel state machines (spec session-lifecycle.md, section 1; scheduler.md, section 3).
//!
//! ```text
//! PENDING → SCHEDULED → PREPARING ⇄ PULLING → RUNNING ⇄ RESTARTING
//!    │          │            │                   │
//!    ▼          ▼            ▼                   ▼
//! CANCELLED  CANCELLED    CANCELLED         TERMINATING → TERMINATED
//! ```
//!
//! The status of a session follows from the statuses of its kernels ([`SessionStatus::of_kernels`]).

use serde::{Deserialize, Serialize};

macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::error::Error;

            /// Names are recognised in any case.
            fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|value| value.as_str().eq_ignore_ascii_case(text)).ok_or_else(|| {
                    $crate::error::Error::of($crate::error::code::INVALID_PARAMETERS, concat!("unknown value for ", stringify!($name)))
                        .with("value", text)
                        .with("expected one of", Self::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", "))
                })
            }
        }
    };
}
pub(crate) use named_enum;

named_enum! {
    /// The status of a session.
    SessionStatus {
        /// In the queue.
        Pending = "PENDING",
        /// Agents are chosen and their capacity is held.
        Scheduled = "SCHEDULED",
        /// Images are being pulled.
        Pulling = "PULLING",
        /// Kernels are being started.
        Preparing = "PREPARING",
        /// All kernels run.
        Running = "RUNNING",
        /// Kernels are being restarted in place.
        Restarting = "RESTARTING",
        /// The main kernel runs, some sub kernel does not.
        RunningDegraded = "RUNNING_DEGRADED",
        /// Kernels are being ended.
        Terminating = "TERMINATING",
        /// Ended.
        Terminated = "TERMINATED",
        /// Failed in a way that needs a forced destroy.
        Error = "ERROR",
        /// Ended before it ran.
        Cancelled = "CANCELLED",
    }
}

named_enum! {
    /// The status of a kernel. `BUILDING`, `RESIZING` and `SUSPENDED` are names that clients know and that are never entered.
    KernelStatus {
        /// In the queue.
        Pending = "PENDING",
        /// An agent is chosen and its capacity is held.
        Scheduled = "SCHEDULED",
        /// Being started.
        Preparing = "PREPARING",
        /// Reserved name.
        Building = "BUILDING",
        /// The image is being pulled.
        Pulling = "PULLING",
        /// Runs.
        Running = "RUNNING",
        /// Being restarted in place.
        Restarting = "RESTARTING",
        /// Reserved name.
        Resizing = "RESIZING",
        /// Reserved name.
        Suspended = "SUSPENDED",
        /// Being ended.
        Terminating = "TERMINATING",
        /// Ended.
        Terminated = "TERMINATED",
        /// Failed.
        Error = "ERROR",
        /// Ended before it ran.
        Cancelled = "CANCELLED",
    }
}

named_enum! {
    /// The result of a session; only batch sessions leave `UNDEFINED`.
    SessionResult {
        /// Not a batch session, or not finished.
        Undefined = "UNDEFINED",
        /// The startup command ended with exit code 0.
        Success = "SUCCESS",
        /// The startup command failed.
        Failure = "FAILURE",
    }
}

named_enum! {
    /// The type of a session.
    SessionType {
        /// Lives until it is destroyed.
        Interactive = "interactive",
        /// Runs its startup command and ends.
        Batch = "batch",
        /// Serves a model; created by model services only.
        Inference = "inference",
    }
}

named_enum! {
    /// How the kernels of a session are placed.
    ClusterMode {
        /// All on one agent.
        SingleNode = "single-node",
        /// Each on its own.
        MultiNode = "multi-node",
    }
}

impl SessionStatus {
    /// Statuses that may follow this one.
    pub fn successors(self) -> &'static [Self] {
        use SessionStatus as S;
        match self {
            S::Pending => &[S::Scheduled, S::Terminating, S::Terminated, S::Error, S::Cancelled],
            S::Scheduled => {
                &[S::Pulling, S::Preparing, S::Terminating, S::Terminated, S::Error, S::Cancelled, S::Pending]
            }
            S::Pulling => &[
                S::Preparing,
                S::Running,
                S::RunningDegraded,
                S::Terminating,
                S::Terminated,
                S::Error,
                S::Cancelled,
                S::Pending,
            ],
            S::Preparing => &[
                S::Pulling,
                S::Running,
                S::RunningDegraded,
                S::Terminating,
                S::Terminated,
                S::Error,
                S::Cancelled,
                S::Pending,
            ],
            // Back to the queue when an agent is lost, where the resource group wants that.
            S::Running => {
                &[S::Restarting, S::RunningDegraded, S::Terminating, S::Terminated, S::Error, S::Pending]
            }
            S::Restarting => {
                &[S::Running, S::RunningDegraded, S::Terminating, S::Terminated, S::Error, S::Pending]
            }
            S::RunningDegraded => {
                &[S::Running, S::Restarting, S::Terminating, S::Terminated, S::Error, S::Pending]
            }
            S::Terminating => &[S::Terminated, S::Error],
            S::Error => &[S::Terminating, S::Terminated],
            S::Terminated | S::Cancelled => &[],
        }
    }

    /// Whether `next` may follow this status.
    pub fn can_become(self, next: Self) -> bool {
        self.successors().contains(&next)
    }

    /// Ended for good: the name is free again and lookups no longer find the session.
    pub fn is_dead(self) -> bool {
        matches!(self, Self::Terminated | Self::Cancelled)
    }

    /// Whether the session can take code and files.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::RunningDegraded)
    }

    /// Whether the session still is on its way to `RUNNING`.
    pub fn is_starting(self) -> bool {
        matches!(self, Self::Pending | Self::Scheduled | Self::Pulling | Self::Preparing)
    }

    /// Whether the session counts against its owner's quotas.
    pub fn occupies_quota(self) -> bool {
        !matches!(self, Self::Pending | Self::Terminating | Self::Terminated | Self::Cancelled)
    }

    /// The status that follows from the main kernel's and its siblings' statuses.
    pub fn of_kernels(main: KernelStatus, siblings: impl IntoIterator<Item = KernelStatus>) -> Self {
        use KernelStatus as K;
        let siblings: Vec<_> = siblings.into_iter().collect();
        let any = |wanted: &[K]| siblings.iter().any(|status| wanted.contains(status));
        match main {
            K::Pending => Self::Pending,
            K::Scheduled => Self::Scheduled,
            K::Preparing | K::Building => Self::Preparing,
            K::Pulling => Self::Pulling,
            K::Restarting => Self::Restarting,
            K::Suspended | K::Error => Self::Error,
            K::Terminating => Self::Terminating,
            K::Cancelled => Self::Cancelled,
            K::Terminated if any(&[K::Terminating]) => Self::Terminating,
            K::Terminated if any(&[K::Error]) => Self::Error,
            K::Terminated => Self::Terminated,
            K::Running | K::Resizing if any(&[K::Pulling]) => Self::Pulling,
            K::Running | K::Resizing if any(&[K::Scheduled, K::Preparing, K::Building]) => Self::Preparing,
            K::Running | K::Resizing if any(&[K::Restarting]) => Self::Restarting,
            K::Running | K::Resizing if any(&[K::Terminating, K::Terminated, K::Error]) => {
                Self::RunningDegraded
            }
            K::Running | K::Resizing => Self::Running,
        }
    }
}

impl KernelStatus {
    /// Whether `next` may follow this status.
    pub fn can_become(self, next: Self) -> bool {
        use KernelStatus as K;
        match self {
            K::Pending => !matches!(next, K::Pending | K::Terminated),
            K::Scheduled
            | K::Preparing
            | K::Building
            | K::Pulling
            | K::Restarting
            | K::Resizing
            | K::Suspended => next != self,
            K::Running => {
                matches!(next, K::Restarting | K::Resizing | K::Terminating | K::Terminated | K::Error)
            }
            K::Terminating => matches!(next, K::Terminated | K::Error),
            K::Error => matches!(next, K::Terminating | K::Terminated),
            K::Terminated | K::Cancelled => false,
        }
    }

    /// Ended for good.
    pub fn is_dead(self) -> bool {
        matches!(self, Self::Terminated | Self::Cancelled)
    }

    /// Whether the kernel holds capacity of its agent.
    pub fn holds_capacity(self) -> bool {
        !matches!(self, Self::Pending | Self::Terminated | Self::Cancelled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_statuses_have_no_successor() {
        for status in SessionStatus::ALL {
            assert_eq!(status.is_dead(), status.successors().is_empty(), "{status}");
            assert!(!status.can_become(*status), "{status} follows itself");
        }
    }

    #[test]
    fn every_living_status_has_a_way_out() {
        for status in SessionStatus::ALL.iter().filter(|status| !status.is_dead()) {
            assert!(status.successors().iter().any(|next| next.is_dead()), "{status} is stuck");
        }
    }

    #[test]
    fn session_status_follows_the_kernels() {
        use KernelStatus as K;
        use SessionStatus as S;
        for (main, siblings, expected) in [
            (K::Running, vec![], S::Running),
            (K::Running, vec![K::Pulling, K::Error], S::Pulling),
            (K::Running, vec![K::Preparing], S::Preparing),
            (K::Running, vec![K::Terminating], S::RunningDegraded),
            (K::Terminated, vec![K::Terminating], S::Terminating),
            (K::Terminated, vec![K::Error], S::Error),
            (K::Terminated, vec![K::Terminated], S::Terminated),
            (K::Suspended, vec![], S::Error),
            (K::Building, vec![], S::Preparing),
        ] {
            assert_eq!(S::of_kernels(main, siblings.clone()), expected, "{main} {siblings:?}");
        }
    }

    #[test]
    fn names_parse_in_any_case() {
        assert_eq!("running".parse::<SessionStatus>().unwrap(), SessionStatus::Running);
        assert_eq!("BATCH".parse::<SessionType>().unwrap(), SessionType::Batch);
        assert!("nonsense".parse::<SessionStatus>().unwrap_err().to_string().contains("PENDING"));
    }
}
