//! Events follow from what changed: they are derived, never written by hand, so none can be forgotten.

use bai_core::port::store::NewEvent;
use bai_core::session::{Kernel, StatusHistory};
use bai_core::status::{SessionResult, SessionStatus};
use bai_core::{KernelStatus, Session};

/// The events of a change (spec session-lifecycle.md, section 10), session first, each status entered once.
pub(crate) fn events_of(before: Option<&Session>, after: &Session) -> Vec<NewEvent> {
    let mut events = result_event(before, after).into_iter().collect::<Vec<_>>();
    let entered = entered(before.map(|session| &session.status_history), &after.status_history);
    for name in entered.filter_map(|status| session_event_name(status, before)) {
        let exit_code = if name == "session_terminated" { after.main().exit_code } else { None };
        events.push(event(name, None, after.status_info.as_deref(), exit_code));
    }
    for kernel in &after.kernels {
        let old = before.and_then(|session| session.kernel(kernel.id));
        events.extend(kernel_events(old, kernel));
    }
    events
}

fn result_event(before: Option<&Session>, after: &Session) -> Option<NewEvent> {
    let old = before.map_or(SessionResult::Undefined, |session| session.result);
    let name = match after.result {
        result if result == old => return None,
        SessionResult::Success => "session_success",
        SessionResult::Failure => "session_failure",
        SessionResult::Undefined => return None,
    };
    let code = after
        .status_data
        .get("batch")
        .and_then(|data| data.get("exit_code"))
        .and_then(serde_json::Value::as_i64);
    let code = code.and_then(|code| i32::try_from(code).ok()).or(after.main().exit_code);
    Some(event(name, None, after.status_info.as_deref(), code))
}

fn session_event_name(status: &str, before: Option<&Session>) -> Option<&'static str> {
    Some(match status.parse().ok()? {
        SessionStatus::Pending if before.is_none() => "session_enqueued",
        SessionStatus::Scheduled => "session_scheduled",
        SessionStatus::Running => "session_started",
        SessionStatus::Cancelled => "session_cancelled",
        SessionStatus::Terminating => "session_terminating",
        SessionStatus::Terminated => "session_terminated",
        _ => return None,
    })
}

fn kernel_events(before: Option<&Kernel>, after: &Kernel) -> Vec<NewEvent> {
    let name = |status: &str| {
        Some(match status.parse().ok()? {
            KernelStatus::Preparing => "kernel_preparing",
            KernelStatus::Pulling => "kernel_pulling",
            KernelStatus::Running => "kernel_started",
            KernelStatus::Cancelled => "kernel_cancelled",
            KernelStatus::Terminating => "kernel_terminating",
            KernelStatus::Terminated => "kernel_terminated",
            _ => return None,
        })
    };
    entered(before.map(|kernel| &kernel.status_history), &after.status_history)
        .filter_map(name)
        .map(|name| event(name, Some(after), after.status_info.as_deref(), after.exit_code))
        .collect()
}

/// Statuses that were entered between the two histories, in order.
fn entered<'a>(before: Option<&'a StatusHistory>, after: &'a StatusHistory) -> impl Iterator<Item = &'a str> {
    let last_before = before.and_then(|history| history.last().map(|(status, _)| status));
    let is_new = move |status: &str, at, is_last: bool| {
        let known = before.and_then(|history| history.get(status)) == Some(at);
        // A clock that stands still gives an entry its old time again; the order of entry still tells.
        !known || (is_last && last_before.is_some_and(|last| last != status))
    };
    let last = after.len().saturating_sub(1);
    after
        .iter()
        .enumerate()
        .filter(move |(i, (status, at))| is_new(status, at, *i == last))
        .map(|(_, (status, _))| status.as_str())
}

fn event(name: &str, kernel: Option<&Kernel>, reason: Option<&str>, exit_code: Option<i32>) -> NewEvent {
    NewEvent {
        name: name.to_owned(),
        kernel: kernel.map(|kernel| kernel.id),
        reason: reason.unwrap_or_default().to_owned(),
        exit_code,
    }
}
