//! Commands to one agent: derives what its kernels need, says it, and deals with refusals.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bai_core::error::code;
use bai_core::port::AgentApi;
use bai_core::port::agent::{KernelRef, KernelSpec};
use bai_core::session::KernelExit;
use bai_core::{AgentId, Error, ErrorKind, KernelStatus, Result, Session, SessionId, SessionStatus};
use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt, StreamExt, stream};

use super::effect::{self, Disposal, Effect};
use super::queue::{self, Item};
use crate::manager::core::Core;
use crate::session::failure::{StartFailure, kernel_died, start_failed};
use crate::session::registry::kernel_ref;
use crate::session::spec::kernel_spec;

/// Commands to one agent at the same time.
const CONCURRENCY: usize = 16;
/// Kernels of one create command.
const CREATE_CHUNK: usize = 64;
/// A create command that failed this often in a row is a failed start.
const CREATE_TRIES: u32 = 5;
/// How often a left-over kernel is seen to before only the agent's reports bring it up again.
const DISPOSE_TRIES: u32 = 10;
/// A kernel that this many reports in a row do not list may be gone: the first may have been on its way while the kernel was being
/// accepted.
const MISSES: u32 = 2;
/// Longest wait for the log of an ended kernel.
const LOG_DEADLINE: Duration = Duration::from_secs(10);

/// A kernel to create.
struct Birth {
    session: Arc<Session>,
    kernel: KernelRef,
}

/// Anything else to do.
enum Errand {
    Kernel { session: Arc<Session>, kernel: KernelRef, effect: Effect },
    Stale { kernel: KernelRef, disposal: Disposal },
}

/// Does what `items` need now.
pub(crate) async fn look_at(core: &Arc<Core>, agent: &AgentId, items: Vec<Item>) {
    if core.agents.lost_since(agent).is_some() {
        return; // its next report marks everything again; until then the sweep decides
    }
    let mut births = Vec::new();
    let mut errands = Vec::new();
    for item in items {
        match item {
            Item::Kernel(_) => sort_kernel(core, agent, item, &mut births, &mut errands),
            Item::Stale(kernel) => sort_stale(core, agent, kernel, &mut errands),
        }
    }
    // Boxed: the compiler cannot see that a stream of these borrowing futures may move between threads.
    let errands: Vec<BoxFuture<'_, ()>> =
        errands.into_iter().map(|errand| run(core, agent, errand).boxed()).collect();
    let errands = stream::iter(errands).buffer_unordered(CONCURRENCY).collect::<Vec<()>>();
    tokio::join!(create(core, agent, births), errands);
}

fn sort_kernel(core: &Core, agent: &AgentId, item: Item, births: &mut Vec<Birth>, errands: &mut Vec<Errand>) {
    let Item::Kernel(id) = item else { return };
    let session = core.registry.by_kernel(id);
    let found = session.as_ref().and_then(|session| session.kernel(id).map(|kernel| (session, kernel)));
    let Some((session, kernel)) = found.filter(|(_, kernel)| kernel.agent.as_ref() == Some(agent)) else {
        core.queues.done(agent, item);
        return;
    };
    let reported = core.agents.kernel(agent, kernel_ref(kernel)).ok().flatten();
    let missing = reported.is_none() && core.agents.misses(agent, kernel_ref(kernel)) >= MISSES;
    let effect = effect::needed(session, kernel, reported.as_deref(), missing);
    let Some(effect) = effect.filter(|effect| core.is_leader() || !effect.is_leaders()) else {
        core.queues.done(agent, item);
        return;
    };
    let said = core.queues.said(agent, item, kernel.generation, effect.name());
    if let Some(left) = queue::patience_left(&effect, said) {
        core.queues.later(agent, item, left);
        return;
    }
    let (session, kernel) = (session.clone(), kernel_ref(kernel));
    match effect {
        Effect::Create => births.push(Birth { session, kernel }),
        effect => errands.push(Errand::Kernel { session, kernel, effect }),
    }
}

fn sort_stale(core: &Core, agent: &AgentId, kernel: KernelRef, errands: &mut Vec<Errand>) {
    let item = Item::Stale(kernel);
    if !core.is_leader() && core.agents.kernel(agent, kernel).is_err() {
        core.queues.done(agent, item); // the manager that plans, or the one that hears the agent, sees to it
        return;
    }
    let disposal = effect::disposal(core.agents.kernel(agent, kernel).ok().flatten().as_deref());
    if disposal == Disposal::Destroy {
        let said = core.queues.said(agent, item, kernel.generation, "dispose");
        if let Some(left) = queue::patience_left(&Effect::Destroy, said) {
            core.queues.later(agent, item, left);
            return;
        }
    }
    errands.push(Errand::Stale { kernel, disposal });
}

async fn run(core: &Arc<Core>, agent: &AgentId, errand: Errand) {
    match errand {
        Errand::Kernel { session, kernel, effect: Effect::Reap(exit) } => {
            reap(core, agent, &session, kernel, exit).await;
        }
        Errand::Kernel { session, kernel, effect: Effect::StartBatch } => {
            let result = call(core, agent, |api| async move { api.start_batch(kernel).await }).await;
            settle(core, agent, kernel, &Effect::StartBatch, session.id, result).await;
        }
        Errand::Kernel { session, kernel, effect: Effect::Verify } => {
            let result = call(core, agent, |api| async move { api.logs(kernel).await.map(drop) }).await;
            if result.is_ok() {
                core.agents.found(agent, kernel); // the lists were old ones
            }
            settle(core, agent, kernel, &Effect::Verify, session.id, result).await;
        }
        Errand::Kernel { session, kernel, effect } => {
            let reason = session.status_info.clone().unwrap_or_default();
            let result =
                call(core, agent, |api| async move { api.destroy_kernel(kernel, &reason).await }).await;
            settle(core, agent, kernel, &effect, session.id, result).await;
        }
        Errand::Stale { kernel, disposal } => dispose(core, agent, kernel, disposal).await,
    }
}

/// One command under the deadline.
async fn call<T, F: Future<Output = Result<T>>>(
    core: &Core,
    agent: &AgentId,
    command: impl FnOnce(Arc<dyn AgentApi>) -> F,
) -> Result<T> {
    let work = async { command(core.agents.api(agent).await?).await };
    tokio::time::timeout(core.options.agent_deadline, work).await.unwrap_or_else(|_| {
        Err(Error::of(code::TIMEOUT, "the agent did not answer in time").with("agent", agent))
    })
}

/// Records the outcome of a command and sees to its repetition.
async fn settle(
    core: &Arc<Core>,
    agent: &AgentId,
    kernel: KernelRef,
    effect: &Effect,
    session: SessionId,
    result: Result<()>,
) {
    let item = Item::Kernel(kernel.id);
    let failures = core.queues.record(agent, item, kernel.generation, effect.name(), result.is_ok());
    match result {
        Ok(()) => core.queues.later(agent, item, effect.patience()),
        Err(error) if error.code() == code::KERNEL_NOT_FOUND => {
            let reason = "container-not-found".to_owned();
            ended(core, agent, session, kernel, KernelExit { code: None, reason, oom: false }).await;
        }
        Err(error) => {
            tracing::warn!(%agent, kernel = %effect::describe(kernel), command = effect.name(), %error, "a command failed");
            core.queues.later(agent, item, queue::backoff(failures));
        }
    }
}

/// Keeps the log of an ended kernel, then records the end.
async fn reap(core: &Arc<Core>, agent: &AgentId, session: &Session, kernel: KernelRef, exit: KernelExit) {
    let fetch = call(core, agent, |api| async move { api.logs(kernel).await });
    let log = tokio::time::timeout(LOG_DEADLINE, fetch).await.unwrap_or_else(|_| {
        Err(Error::of(code::TIMEOUT, "the log did not come in time").with("agent", agent))
    });
    let kept = match log {
        Ok(log) if log.is_empty() => Ok(()),
        Ok(log) => core.backends.logs.put_log(kernel.id, session.id, &log).await,
        Err(error) => Err(error),
    };
    if let Err(error) = kept {
        let retry = error.kind().is_retryable()
            && core.queues.record(agent, Item::Kernel(kernel.id), kernel.generation, "reap", false) < 3;
        if retry {
            core.queues.later(agent, Item::Kernel(kernel.id), queue::backoff(1));
            return;
        }
        tracing::warn!(%agent, kernel = %effect::describe(kernel), %error, "the log of an ended kernel is lost");
    }
    ended(core, agent, session.id, kernel, exit).await;
}

/// Records the end of a kernel with its last statistics.
async fn ended(core: &Arc<Core>, agent: &AgentId, session: SessionId, kernel: KernelRef, exit: KernelExit) {
    let report = core.agents.last_report(agent, kernel.id);
    let stats = report.and_then(|report| serde_json::to_value(report.stats.as_ref()?).ok());
    let result = core
        .update(session, |session, now| {
            if !is_current(session, agent, kernel) {
                return Ok(());
            }
            if let Some(stats) = &stats {
                session.kernel_mut(kernel.id)?.last_stat = Some(stats.clone());
            }
            kernel_died(session, kernel.id, exit.clone(), now)
        })
        .await;
    if let Err(error) = result {
        tracing::warn!(%session, kernel = %effect::describe(kernel), %error, "the end of a kernel is not recorded yet");
        core.queues.later(agent, Item::Kernel(kernel.id), Duration::from_secs(1));
    }
}

/// Whether the record still means this start of the kernel on this agent. One that went back to the queue keeps its generation until
/// it is placed again, and has no agent.
fn is_current(session: &Session, agent: &AgentId, kernel: KernelRef) -> bool {
    session.kernel(kernel.id).is_some_and(|known| {
        known.generation == kernel.generation
            && known.agent.as_ref() == Some(agent)
            && !known.status.is_dead()
    })
}

async fn dispose(core: &Arc<Core>, agent: &AgentId, kernel: KernelRef, disposal: Disposal) {
    let item = Item::Stale(kernel);
    let result = match disposal {
        Disposal::Forget => call(core, agent, |api| async move { api.forget(kernel).await }).await,
        Disposal::Destroy => {
            call(core, agent, |api| async move { api.destroy_kernel(kernel, "not-found-in-manager").await })
                .await
        }
    };
    let failures = core.queues.record(agent, item, kernel.generation, "dispose", result.is_ok());
    match result {
        Ok(()) if disposal == Disposal::Destroy => core.queues.later(agent, item, Effect::Destroy.patience()),
        Err(error) if failures < DISPOSE_TRIES && !is_gone(&error) => {
            tracing::debug!(%agent, kernel = %effect::describe(kernel), %error, "a left-over kernel is still there");
            core.queues.later(agent, item, queue::backoff(failures));
        }
        // Gone, or for the reports of the agent to bring up again.
        _ => core.queues.done(agent, item),
    }
}

/// Whether the agent no longer has the kernel in this generation.
fn is_gone(error: &Error) -> bool {
    [code::KERNEL_NOT_FOUND, code::STALE_GENERATION].contains(&error.code())
}

/// Creates kernels, many with one command.
async fn create(core: &Arc<Core>, agent: &AgentId, births: Vec<Birth>) {
    let prepared = join_all(births.into_iter().map(|birth| prepare(core, agent, birth))).await;
    let specs: Vec<_> = prepared.into_iter().flatten().collect();
    for chunk in specs.chunks(CREATE_CHUNK) {
        let result = send(core, agent, chunk.to_vec()).await;
        match result {
            Err(error) if chunk.len() > 1 && !error.kind().is_retryable() => {
                // One of them is refused: find out which.
                for spec in chunk {
                    let result = send(core, agent, vec![spec.clone()]).await;
                    created(core, agent, spec, result).await;
                }
            }
            result => {
                let mut outcomes: Vec<BoxFuture<'_, ()>> = Vec::with_capacity(chunk.len());
                for spec in chunk {
                    let again =
                        result.as_ref().copied().map_err(|error| Error::of(error.code(), error.to_string()));
                    outcomes.push(created(core, agent, spec, again).boxed());
                }
                join_all(outcomes).await;
            }
        }
    }
}

async fn send(core: &Core, agent: &AgentId, specs: Vec<KernelSpec>) -> Result<()> {
    call(core, agent, |api| async move { api.create_kernels(specs).await }).await
}

/// Announces that a kernel is being prepared; `None` when it no longer should be.
async fn prepare(core: &Arc<Core>, agent: &AgentId, birth: Birth) -> Option<KernelSpec> {
    let result = core
        .update(birth.session.id, |session, now| match session.status {
            SessionStatus::Scheduled => {
                session.advance_all(SessionStatus::Preparing, KernelStatus::Preparing, "", now)
            }
            _ => Ok(()),
        })
        .await;
    match result {
        Ok(session) => {
            let starting = session.status.is_starting() || session.status == SessionStatus::Restarting;
            let kernel = session
                .kernel(birth.kernel.id)
                .filter(|_| starting && is_current(&session, agent, birth.kernel))?;
            let image = core.images.find(&kernel.image, &kernel.architecture).await;
            match kernel_spec(&session, kernel, image.as_ref(), &core.backends.secret) {
                Ok(spec) => Some(spec),
                Err(error) => {
                    let failure = StartFailure {
                        code: error.code().id().to_owned(),
                        message: error.to_string(),
                        retryable: false,
                    };
                    not_started(core, agent, session.id, birth.kernel, &failure).await;
                    None
                }
            }
        }
        Err(error) => {
            tracing::warn!(session = %birth.session.id, %error, "the session cannot be prepared yet");
            core.queues.later(agent, Item::Kernel(birth.kernel.id), Duration::from_secs(1));
            None
        }
    }
}

async fn created(core: &Arc<Core>, agent: &AgentId, spec: &KernelSpec, result: Result<()>) {
    let item = Item::Kernel(spec.kernel.id);
    let failures =
        core.queues.record(agent, item, spec.kernel.generation, Effect::Create.name(), result.is_ok());
    let Err(error) = result else {
        core.queues.later(agent, item, Effect::Create.patience());
        return;
    };
    tracing::warn!(%agent, kernel = %effect::describe(spec.kernel), failures, %error, "a kernel was not accepted");
    let retryable = error.kind().is_retryable();
    if retryable && failures < CREATE_TRIES && error.code() != code::STALE_GENERATION {
        core.queues.later(agent, item, queue::backoff(failures));
        return;
    }
    if error.code() == code::AGENT_UNREACHABLE {
        // Or everything in the queue would be sent there, and be cancelled before the agent is back or known to be lost.
        core.agents.not_reached(agent);
    }
    let failure = StartFailure {
        code: error.code().id().to_owned(),
        message: error.to_string(),
        retryable: retryable || error.kind() == ErrorKind::NotFound,
    };
    not_started(core, agent, spec.session, spec.kernel, &failure).await;
}

/// Records that a kernel could not be started.
pub(crate) async fn not_started(
    core: &Arc<Core>,
    agent: &AgentId,
    session: SessionId,
    kernel: KernelRef,
    failure: &StartFailure,
) {
    let attempts = core.options.start_attempts;
    let result = core
        .update(session, |session, now| {
            if !is_current(session, agent, kernel) {
                return Ok(());
            }
            if session.status.is_starting() {
                return start_failed(session, Some(agent), failure, attempts, now);
            }
            let exit = KernelExit { code: None, reason: "failed-to-start".to_owned(), oom: false };
            kernel_died(session, kernel.id, exit, now)
        })
        .await;
    if let Err(error) = result {
        tracing::warn!(%session, kernel = %effect::describe(kernel), %error, "a failed start is not recorded yet");
        core.queues.later(agent, Item::Kernel(kernel.id), Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use bai_testkit::fixture;

    use super::*;

    #[test]
    fn how_an_earlier_start_ended_is_no_concern_of_a_session_that_waits_again() {
        let agent = AgentId::new("i-1");
        let mut session = fixture::cluster_session("again", 2);
        session.place(&[agent.clone(), agent.clone()], fixture::at(1)).unwrap();
        let start = kernel_ref(&session.kernels[1]);
        assert!(is_current(&session, &agent, start));
        assert!(!is_current(&session, &"i-2".into(), start));
        session.requeue("failed-to-start", fixture::at(2)).unwrap();
        assert!(!is_current(&session, &agent, start));
        session.place(&[agent.clone(), agent.clone()], fixture::at(3)).unwrap();
        assert!(!is_current(&session, &agent, start));
    }
}
