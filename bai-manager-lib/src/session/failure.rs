//! What the end of a kernel means for its session. Pure: state in, state out.

use bai_core::session::KernelExit;
use bai_core::status::{SessionResult, SessionType};
use bai_core::{AgentId, KernelId, KernelStatus, Result, Session, SessionStatus, Timestamp};
use serde_json::{Map, Value, json};

/// Why a kernel could not be started.
#[derive(Debug, Clone)]
pub(crate) struct StartFailure {
    /// Code of the error.
    pub(crate) code: String,
    /// Why, in words.
    pub(crate) message: String,
    /// Whether trying elsewhere can help.
    pub(crate) retryable: bool,
}

/// A kernel could not be started: the session goes back to the queue, or after too many attempts is cancelled.
pub(crate) fn start_failed(
    session: &mut Session,
    agent: Option<&AgentId>,
    failure: &StartFailure,
    attempts: u32,
    now: Timestamp,
) -> Result<()> {
    const REASON: &str = "failed-to-start";
    session.status_data.insert("error".into(), error_data(agent, failure));
    if let Some(agent) = agent {
        remember_failed_agent(&mut session.status_data, agent);
    }
    if failure.retryable && session.main().generation < attempts {
        session.requeue(REASON, now)
    } else {
        session.cancel(REASON, now)
    }
}

/// Agents with kernels of the session are lost for good: it starts anew on others, unless it has lost too many already.
/// Whether it does.
///
/// # Errors
/// `Conflict` when it is on its way to its end.
pub(crate) fn start_over(
    session: &mut Session,
    lost: &[AgentId],
    attempts: u32,
    now: Timestamp,
) -> Result<bool> {
    if failed_agents(session).len() + 1 >= attempts as usize {
        return Ok(false);
    }
    session.requeue("agent-lost", now)?;
    for agent in lost {
        remember_failed_agent(&mut session.status_data, agent);
    }
    Ok(true)
}

fn error_data(agent: Option<&AgentId>, failure: &StartFailure) -> Value {
    json!({
        "src": if agent.is_some() { "agent" } else { "other" },
        "name": failure.code,
        "repr": failure.message,
        "agent_id": agent,
    })
}

fn remember_failed_agent(status_data: &mut Map<String, Value>, agent: &AgentId) {
    let failed = status_data.entry("failed_agents").or_insert_with(|| json!([]));
    if let Some(failed) = failed.as_array_mut()
        && !failed.iter().any(|known| known == agent.as_str())
    {
        failed.push(agent.as_str().into());
    }
}

/// Agents that failed to start the session.
pub(crate) fn failed_agents(session: &Session) -> Vec<AgentId> {
    let failed = session.status_data.get("failed_agents").and_then(Value::as_array);
    failed.into_iter().flatten().filter_map(Value::as_str).map(AgentId::from).collect()
}

/// A kernel has ended. The end of the main kernel is the end of the session; the end of another degrades it.
pub(crate) fn kernel_died(
    session: &mut Session,
    kernel: KernelId,
    mut exit: KernelExit,
    now: Timestamp,
) -> Result<()> {
    if session.status == SessionStatus::Terminating {
        if let Some(reason) = &session.status_info {
            exit.reason.clone_from(reason);
        }
    } else if kernel == session.main().id {
        if session.session_type == SessionType::Batch && session.result == SessionResult::Undefined {
            session.result = SessionResult::Failure;
        }
        let reason = if exit.oom { "out-of-memory" } else { exit.reason.as_str() };
        terminate(session, reason, now)?;
    }
    session.kernel_ended(kernel, &exit, now)?;
    if session.status.is_dead() {
        session.status_data.shift_remove("session");
    }
    Ok(())
}

/// Asks all kernels to end.
pub(crate) fn terminate(session: &mut Session, reason: &str, now: Timestamp) -> Result<()> {
    session.status_data.insert("session".into(), json!({ "status": "terminating" }));
    session.advance_all(SessionStatus::Terminating, KernelStatus::Terminating, reason, now)
}

/// Declares all kernels dead without waiting for their agents.
pub(crate) fn end_now(session: &mut Session, reason: &str, now: Timestamp) -> Result<()> {
    if session.status == SessionStatus::Pending {
        return session.cancel(reason, now);
    }
    if session.status != SessionStatus::Terminating {
        terminate(session, reason, now)?;
    }
    session.status_info = Some(reason.to_owned());
    let living = session.kernels.iter().filter(|kernel| !kernel.status.is_dead()).map(|kernel| kernel.id);
    for kernel in living.collect::<Vec<_>>() {
        kernel_died(session, kernel, KernelExit { code: None, reason: reason.to_owned(), oom: false }, now)?;
    }
    Ok(())
}
