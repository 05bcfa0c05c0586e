//! What has to be done about a kernel on its agent: a function of our record and the agent's word.

use std::time::Duration;

use bai_core::port::agent::{KernelRef, KernelReport, KernelStage};
use bai_core::session::KernelExit;
use bai_core::status::{SessionResult, SessionType};
use bai_core::{Kernel, KernelStatus, Session, SessionStatus};

/// One command to an agent, or what follows from its word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Have it started.
    Create,
    /// Have the startup command run.
    StartBatch,
    /// Have it ended.
    Destroy,
    /// It has ended: keep its log and record the end.
    Reap(KernelExit),
    /// Its agent no longer lists it: ask whether it has it. A list may be an old one that was long under way.
    Verify,
}

impl Effect {
    /// How long to wait for the result to show before saying it again.
    pub(crate) fn patience(&self) -> Duration {
        match self {
            Self::Create | Self::Destroy => Duration::from_secs(10),
            Self::StartBatch => Duration::from_mins(1),
            Self::Reap(_) | Self::Verify => Duration::from_secs(1),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::StartBatch => "start_batch",
            Self::Destroy => "destroy",
            Self::Reap(_) => "reap",
            Self::Verify => "verify",
        }
    }

    /// Whether only the manager that plans does it. What follows from a report is done by whoever received it.
    pub(crate) fn is_leaders(&self) -> bool {
        !matches!(self, Self::Reap(_) | Self::Verify)
    }
}

/// What to do about `kernel`; `None` when everything is as it should be. `missing`: its agent has stopped listing it.
pub(crate) fn needed(
    session: &Session,
    kernel: &Kernel,
    report: Option<&KernelReport>,
    missing: bool,
) -> Option<Effect> {
    if kernel.status.is_dead() {
        return None;
    }
    if missing && kernel.status == KernelStatus::Running {
        return Some(Effect::Verify); // what has run is not started again
    }
    let stage = report.map(|report| &report.stage);
    match session.status {
        SessionStatus::Scheduled => Some(Effect::Create),
        SessionStatus::Preparing | SessionStatus::Pulling => stage.is_none().then_some(Effect::Create),
        SessionStatus::Restarting if stage.is_none() => Some(Effect::Create),
        SessionStatus::Running | SessionStatus::RunningDegraded | SessionStatus::Restarting => match stage {
            Some(KernelStage::Exited(exit)) => Some(Effect::Reap(exit.clone())),
            _ => batch_pending(session, kernel, report).then_some(Effect::StartBatch),
        },
        SessionStatus::Terminating => Some(match stage {
            Some(KernelStage::Exited(exit)) => Effect::Reap(exit.clone()),
            Some(KernelStage::Failed { .. }) => Effect::Reap(unknown_exit(session)),
            _ => Effect::Destroy,
        }),
        SessionStatus::Pending
        | SessionStatus::Terminated
        | SessionStatus::Error
        | SessionStatus::Cancelled => None,
    }
}

fn batch_pending(session: &Session, kernel: &Kernel, report: Option<&KernelReport>) -> bool {
    session.session_type == SessionType::Batch
        && session.status != SessionStatus::Restarting
        && session.result == SessionResult::Undefined
        && kernel.id == session.main().id
        && report.is_none_or(|report| report.batch.is_none())
}

fn unknown_exit(session: &Session) -> KernelExit {
    let reason = session.status_info.clone().unwrap_or_else(|| "unknown".to_owned());
    KernelExit { code: None, reason, oom: false }
}

/// What to do about a kernel whose record is gone, dead or elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disposal {
    /// It may still run.
    Destroy,
    /// It has ended: remove its traces.
    Forget,
}

/// `None` once the agent no longer knows it.
pub(crate) fn disposal(reported: Option<&KernelReport>) -> Disposal {
    match reported.map(|report| &report.stage) {
        Some(KernelStage::Exited(_) | KernelStage::Failed { .. }) => Disposal::Forget,
        _ => Disposal::Destroy,
    }
}

/// Names a kernel for messages.
pub(crate) fn describe(kernel: KernelRef) -> String {
    format!("{}#{}", kernel.id, kernel.generation)
}
