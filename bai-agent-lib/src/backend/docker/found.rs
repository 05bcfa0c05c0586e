//! The containers of an agent, as the engine knows them.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use bai_core::error::Result;
use bai_core::id::SessionId;
use bai_core::port::agent::KernelRef;
use bai_core::port::backend::{RunnerEndpoint, Started};
use bai_core::session::KernelExit;
use bai_kernel_lib::sandbox::CONTROL_DIR;
use bollard::models::{ContainerState, ContainerSummary, ContainerSummaryStateEnum};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::container::{CLUSTER, Identity};
use super::engine::{Engine, Failure};
use crate::backend::process::RUNNER_SOCKET;

/// Exit code of what SIGKILL has ended.
const KILLED: i32 = 128 + 9;

/// Ended containers that are looked at side by side.
const CONCURRENT: usize = 8;

/// A container of ours.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) kernel: KernelRef,
    pub(super) stage: Stage,
    identity: Identity,
    control_dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Made and never started.
    Created,
    /// Its processes exist.
    Running,
    Ended,
}

/// The containers with `label`, ended ones too.
pub(super) async fn find(engine: &Engine, label: String) -> Result<Vec<Found>, Failure> {
    let filters = HashMap::from([("label".to_owned(), vec![label])]);
    let options =
        ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
    let listed = engine.call(engine.docker.list_containers(Some(options))).await?;
    Ok(listed.into_iter().filter_map(Found::read).collect())
}

impl Found {
    fn read(listed: ContainerSummary) -> Option<Self> {
        let labels = listed.labels.unwrap_or_default();
        let identity = listed.names?.iter().find_map(|name| Identity::read(name, &labels))?;
        let mounts = listed.mounts.unwrap_or_default();
        let control = mounts.into_iter().find(|mount| mount.destination.as_deref() == Some(CONTROL_DIR))?;
        let stage = match listed.state? {
            ContainerSummaryStateEnum::CREATED => Stage::Created,
            ContainerSummaryStateEnum::EXITED
            | ContainerSummaryStateEnum::DEAD
            | ContainerSummaryStateEnum::REMOVING => Stage::Ended,
            _ => Stage::Running,
        };
        Some(Self {
            id: listed.id?,
            kernel: identity.kernel,
            stage,
            identity,
            control_dir: control.source?.into(),
        })
    }

    /// In the form that leaves the back end.
    pub(super) fn started(self, exit: Option<KernelExit>, gaps: &[String]) -> Started {
        Started {
            kernel: self.kernel,
            session: self.identity.session,
            container_id: self.id,
            endpoint: RunnerEndpoint::Unix(self.control_dir.join(RUNNER_SOCKET)),
            exit,
            gaps: gaps.to_owned(),
        }
    }
}

/// The session of a container that is in the session's network; `None` when it is in none, or there is no container.
pub(super) async fn clustered(engine: &Engine, name: &str) -> Result<Option<SessionId>, Failure> {
    let container =
        match engine.call(engine.docker.inspect_container(name, None::<InspectContainerOptions>)).await {
            Err(failure) if failure.is_missing() => return Ok(None),
            container => container?,
        };
    let labels = container.config.and_then(|config| config.labels).unwrap_or_default();
    let session = Identity::read(name, &labels).map(|identity| identity.session);
    Ok(session.filter(|_| labels.contains_key(CLUSTER)))
}

/// How the container ended; `None` while it has not, or when it is gone.
pub(super) async fn inspect_exit(engine: &Engine, id: &str) -> Result<Option<KernelExit>, Failure> {
    match engine.call(engine.docker.inspect_container(id, None::<InspectContainerOptions>)).await {
        Ok(container) => Ok(container.state.as_ref().and_then(exit)),
        Err(failure) if failure.is_missing() => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn exit(state: &ContainerState) -> Option<KernelExit> {
    let alive = [state.running, state.paused, state.restarting].contains(&Some(true));
    let code = state.exit_code.and_then(|code| i32::try_from(code).ok());
    (!alive).then(|| ended(code, state.oom_killed == Some(true)))
}

/// The end of a container in which the memory limit has, at some time, `oom_killed` a process: that is how it ended if its first
/// process was killed.
pub(super) fn ended(code: Option<i32>, oom_killed: bool) -> KernelExit {
    KernelExit { code, reason: "self-terminated".into(), oom: oom_killed && code == Some(KILLED) }
}

/// What is reported of a container that a crash left between its making and its start.
pub(super) fn never_started() -> KernelExit {
    KernelExit { code: None, reason: "failed-to-start".into(), oom: false }
}

/// How containers ended, by their id: an end does not change, so each is asked for once.
#[derive(Debug, Default)]
pub(super) struct Exits(parking_lot::Mutex<HashMap<String, KernelExit>>);

impl Exits {
    /// The exits of all ended containers among `found`; containers removed meanwhile have none. What is known of others is
    /// forgotten.
    pub(super) async fn of(&self, engine: &Engine, found: &[Found]) -> Result<HashMap<String, KernelExit>> {
        let ended: HashSet<&str> =
            found.iter().filter(|found| found.stage == Stage::Ended).map(|found| found.id.as_str()).collect();
        let unknown: Vec<String> = {
            let mut known = self.0.lock();
            known.retain(|id, _| ended.contains(id.as_str()));
            ended.iter().filter(|id| !known.contains_key(**id)).map(|id| (*id).to_owned()).collect()
        };
        let looked_at: Vec<_> = stream::iter(unknown)
            .map(|id| async move { inspect_exit(engine, &id).await.map(|exit| (id, exit)) })
            .buffer_unordered(CONCURRENT)
            .try_collect()
            .await?;
        let mut known = self.0.lock();
        known.extend(looked_at.into_iter().filter_map(|(id, exit)| Some((id, exit?))));
        Ok(known.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_by_the_memory_limit_is_one() {
        for (code, oom_killed, oom) in
            [(Some(137), true, true), (Some(137), false, false), (Some(0), true, false), (None, true, false)]
        {
            assert_eq!(ended(code, oom_killed).oom, oom, "{code:?} {oom_killed}");
        }
    }
}
