//! Reports of agents: the only source of what kernels really do.

use std::collections::HashSet;
use std::sync::Arc;

use bai_core::port::agent::{AgentReport, KernelRef, KernelReport, KernelStage, ReportReply, RunningKernel};
use bai_core::session::KernelExit;
use bai_core::status::{SessionResult, SessionType};
use bai_core::{AgentId, KernelStatus, Result, Session, SessionId, SessionStatus, Timestamp};
use futures_util::future::join_all;
use serde_json::json;

use super::queue::Item;
use crate::manager::core::Core;
use crate::session::failure::{StartFailure, start_failed, terminate};

/// Takes a report: registers the agent and moves its kernels on.
pub(crate) async fn report(core: &Arc<Core>, report: AgentReport) -> Result<ReportReply> {
    let now = core.now();
    let Some(taken) = core.agents.accept(&report, now) else {
        tracing::debug!(agent = %report.agent, seq = report.seq, "an old report is ignored");
        return Ok(ReportReply::default());
    };
    if taken.restarted {
        core.queues.unsay(&report.agent);
    }
    if let Some(row) = &taken.row
        && let Err(error) = core.backends.agents.put_agent(row).await
    {
        core.agents.store_failed(&row.id);
        return Err(error);
    }
    if let Some(images) = &report.images {
        if let Err(error) = core.backends.images.put_agent_images(&report.agent, images).await {
            core.agents.images_failed(&report.agent);
            return Err(error);
        }
        core.images.invalidate();
        core.agents.touch();
    }
    if taken.capacity_changed || report.images.is_some() {
        tracing::info!(agent = %report.agent, group = report.resource_group, capacity = %report.capacity, "agent ready");
        core.mark_pending_groups();
    }
    let unknown = follow_kernels(core, &report).await?;
    Ok(ReportReply { send_images: taken.send_images, unknown })
}

/// Compares the list with our records, and returns the kernels nobody here knows.
async fn follow_kernels(core: &Arc<Core>, report: &AgentReport) -> Result<Vec<KernelRef>> {
    let mut kernels: Vec<_> = report.kernels.iter().collect();
    kernels.sort_by_key(|kernel| kernel.session);
    let (mut unknown, mut ours) = (Vec::new(), 0);
    let mut news = Vec::new();
    for kernels in kernels.chunk_by(|one, other| one.session == other.session) {
        let id = kernels[0].session;
        let Some(session) = known(core, &report.agent, id, kernels).await? else {
            unknown.extend(kernels.iter().map(|kernel| kernel.kernel));
            continue;
        };
        for kernel in kernels {
            if !is_ours(&session, &report.agent, kernel.kernel) {
                unknown.push(kernel.kernel);
                core.mark(&report.agent, Item::Stale(kernel.kernel));
                continue;
            }
            ours += 1;
            if matches!(kernel.stage, KernelStage::Exited(_) | KernelStage::Failed { .. }) {
                core.mark(&report.agent, Item::Kernel(kernel.kernel.id));
            }
        }
        if kernels
            .iter()
            .any(|kernel| is_ours(&session, &report.agent, kernel.kernel) && is_news(&session, kernel))
        {
            news.push(move_on(core, report, id, kernels));
        }
    }
    join_all(news).await;
    notice_missing(core, report, ours);
    unknown.sort_unstable();
    Ok(unknown)
}

/// The session from memory; from the store when memory does not have it, or may lag and takes one of the kernels for nobody's.
///
/// An agent has a kernel only after its placement is in the store. So what is not ours in a read that comes after the report will
/// never be.
async fn known(
    core: &Arc<Core>,
    agent: &AgentId,
    id: SessionId,
    kernels: &[&KernelReport],
) -> Result<Option<Arc<Session>>> {
    let all_ours = |session: &Session| kernels.iter().all(|kernel| is_ours(session, agent, kernel.kernel));
    match core.registry.get(id) {
        Some(session) if core.is_current() || all_ours(&session) => Ok(Some(session)),
        _ => core.reload(id).await,
    }
}

/// Whether our record of the kernel is alive, on this agent and of this generation.
fn is_ours(session: &Session, agent: &AgentId, kernel: KernelRef) -> bool {
    session.kernel(kernel.id).is_some_and(|known| {
        known.agent.as_ref() == Some(agent)
            && known.generation == kernel.generation
            && !known.status.is_dead()
    })
}

/// Whether the report of a kernel says more than the record knows.
fn is_news(session: &Session, report: &KernelReport) -> bool {
    let Some(kernel) = session.kernel(report.kernel.id) else { return false };
    let starting = matches!(
        kernel.status,
        KernelStatus::Scheduled | KernelStatus::Preparing | KernelStatus::Pulling | KernelStatus::Restarting
    );
    let stage = match &report.stage {
        KernelStage::Preparing => kernel.status == KernelStatus::Pulling,
        KernelStage::Pulling => matches!(kernel.status, KernelStatus::Scheduled | KernelStatus::Preparing),
        KernelStage::Running(facts) => starting || session.is_oom_news(kernel.id, facts.oom_kills),
        KernelStage::Failed { .. } => session.status != SessionStatus::Terminating,
        KernelStage::Exited(_) => session.status.is_starting(),
        KernelStage::Terminating => false,
    };
    stage || is_batch_news(session, report)
}

fn is_batch_news(session: &Session, report: &KernelReport) -> bool {
    report.batch.is_some()
        && session.session_type == SessionType::Batch
        && session.result == SessionResult::Undefined
        && report.kernel.id == session.main().id
        && session.status.is_running()
}

async fn move_on(core: &Arc<Core>, report: &AgentReport, id: SessionId, kernels: &[&KernelReport]) {
    let attempts = core.options.start_attempts;
    let result = core
        .update(id, |session, now| {
            for kernel in kernels {
                if is_ours(session, &report.agent, kernel.kernel) && is_news(session, kernel) {
                    apply(session, report, kernel, attempts, now)?;
                }
            }
            Ok(())
        })
        .await;
    if let Err(error) = result {
        tracing::warn!(session = %id, agent = %report.agent, %error, "a report is not recorded yet: the next one repeats it");
    }
}

/// Applies what one kernel's report says to its session.
fn apply(
    session: &mut Session,
    report: &AgentReport,
    kernel: &KernelReport,
    attempts: u32,
    now: Timestamp,
) -> Result<()> {
    let id = kernel.kernel.id;
    match &kernel.stage {
        KernelStage::Preparing => _ = session.advance_kernel(id, KernelStatus::Preparing, "", now)?,
        KernelStage::Pulling => {
            let image = session.kernel_mut(id)?.image.clone();
            session.advance_kernel(id, KernelStatus::Pulling, &image, now)?;
        }
        KernelStage::Running(facts)
            if session.kernel(id).is_some_and(|known| known.status != KernelStatus::Running) =>
        {
            take_facts(session, report, id, facts)?;
            session.advance_kernel(id, KernelStatus::Running, "", now)?;
        }
        KernelStage::Running(facts) if session.is_oom_news(id, facts.oom_kills) => {
            session.note_oom(id, facts.oom_kills)?;
        }
        KernelStage::Failed { code, message } => {
            let failure =
                StartFailure { code: code.clone(), message: message.clone(), retryable: is_retryable(code) };
            return fail(session, &report.agent, kernel.kernel, &failure, attempts, now);
        }
        KernelStage::Exited(exit) if session.status.is_starting() => {
            let code = exit.code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
            let failure = StartFailure {
                code: bai_core::error::code::KERNEL_CREATION.id().to_owned(),
                message: format!(
                    "the kernel ended while it was being started (exit code {code}, {})",
                    exit.reason
                ),
                retryable: true,
            };
            return fail(session, &report.agent, kernel.kernel, &failure, attempts, now);
        }
        _ => {}
    }
    if is_batch_news(session, kernel)
        && let Some(outcome) = &kernel.batch
    {
        session.result = if outcome.exit_code == 0 { SessionResult::Success } else { SessionResult::Failure };
        session.status_data.insert("batch".into(), json!({ "exit_code": outcome.exit_code }));
        terminate(session, &outcome.reason, now)?;
    }
    Ok(())
}

fn take_facts(
    session: &mut Session,
    report: &AgentReport,
    id: bai_core::KernelId,
    facts: &RunningKernel,
) -> Result<()> {
    let kernel = session.kernel_mut(id)?;
    kernel.container_id = Some(facts.container_id.clone()).filter(|id| !id.is_empty());
    let host = if facts.kernel_host.is_empty() { &report.public_host } else { &facts.kernel_host };
    kernel.kernel_host = Some(host.clone());
    kernel.service_ports.clone_from(&facts.service_ports);
    kernel.attached_devices.clone_from(&facts.attached_devices);
    if !facts.isolation_gaps.is_empty() {
        session.status_data.insert("isolation_gaps".into(), json!(facts.isolation_gaps));
    }
    Ok(())
}

fn fail(
    session: &mut Session,
    agent: &AgentId,
    kernel: KernelRef,
    failure: &StartFailure,
    attempts: u32,
    now: Timestamp,
) -> Result<()> {
    if session.status.is_starting() {
        return start_failed(session, Some(agent), failure, attempts, now);
    }
    let exit = KernelExit { code: None, reason: "failed-to-start".to_owned(), oom: false };
    crate::session::failure::kernel_died(session, kernel.id, exit, now)
}

/// Whether an error that an agent reports by its code may go away elsewhere.
fn is_retryable(code: &str) -> bool {
    bai_core::Code::from_id(code).is_none_or(|code| {
        code.kind().is_retryable()
            || matches!(code.kind(), bai_core::ErrorKind::NotFound | bai_core::ErrorKind::Internal)
    })
}

/// Has kernels looked after that should be on the agent and are not in its list, of which `ours` are those of our records.
fn notice_missing(core: &Arc<Core>, report: &AgentReport, ours: usize) {
    let mut missing = Vec::new();
    if core.registry.count_on(&report.agent) != ours {
        let listed: HashSet<_> = report.kernels.iter().map(|kernel| kernel.kernel).collect();
        missing = core.registry.on_agent(&report.agent, |kernel| !listed.contains(&kernel));
    }
    core.agents.note_missing(&report.agent, &missing);
    for kernel in missing {
        core.mark(&report.agent, Item::Kernel(kernel.id));
    }
}
