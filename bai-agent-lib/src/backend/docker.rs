//! The Docker back end: a kernel is a container of an engine on this host, with the runner as its first process.
//!
//! ```text
//!   agent ──unix socket──▶ engine ──▶ container  /opt/kernel/bai-krunner   the runner, read-only
//!     │                                          /opt/kernel/control       its configuration and socket, root only
//!     └──── control directory on the host ─────▶ /home/config, /home/work
//! ```
//!
//! Any image will do: the runner is static and mounted, and what the image would start by itself is ignored. The runner
//! is root with six capabilities, to prepare the kernel and to end it; user code is the user of the runner's
//! configuration, without capabilities and unable to gain any. The engine's own system call filter stays on. Ports are
//! published on the loopback address.
//!
//! A session of several kernels has a network of its own, in which they know each other by host name: a bridge, or an
//! overlay of the swarm when the kernels are on several engines. A manager of the swarm must be among those. Other kernels
//! are on the engine's default bridge, where they can reach each other but no such network. An engine has room for about
//! thirty bridges; its setting `default-address-pools` makes more.
//!
//! Nothing of a kernel's state is kept in this process. Containers are named `kernel.<kernel id>.<generation>` and carry
//! labels with the agent, kernel, generation and session, by which a back end opened later, after a crash, finds them
//! again. Containers of other agents, and such that only look like ours, are never touched. What is kept is what cannot
//! change: how an ended container ended, and what an image id stands for.
//!
//! A runner's socket is named by its path on the host. Where that path is longer than the 107 bytes that fit into a
//! socket address, open the directory and connect to `/proc/self/fd/<descriptor>/runner.sock`.
//!
//! ```no_run
//! # async fn example() -> bai_core::error::Result<()> {
//! use bai_agent_lib::backend::docker::{DockerBackend, DockerOptions};
//! use bai_core::port::KernelBackend;
//!
//! let backend = DockerBackend::connect(DockerOptions::new("unix:///run/docker.sock", "agent1")).await?;
//! for image in backend.images().await? {
//!     println!("{} {:?}", image.name, image.aliases);
//! }
//! # Ok(())
//! # }
//! ```

mod container;
mod engine;
mod events;
mod found;
mod image;
mod label;
mod network;
mod options;
mod pull;
mod turn;
mod usage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bai_core::error::{Error, Result, code};
use bai_core::execution::KernelStats;
use bai_core::image::Image;
use bai_core::port::KernelBackend;
use bai_core::port::agent::KernelRef;
use bai_core::port::backend::{BackendCapability, ExitNotice, Limits, RunnerEndpoint, StartSpec, Started};
use bollard::models::{ContainerUpdateBody, SystemInfo};
use bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptions, StartContainerOptions, StopContainerOptions,
};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use self::container::{KERNEL, OWNER};
use self::engine::{Engine, Failure};
use self::events::Watch;
use self::found::{Exits, Found, Stage};
use self::image::Catalogue;
use self::network::Networks;
use self::turn::Turns;
use self::usage::Meters;
use super::process::RUNNER_SOCKET;

pub use self::options::{DockerOptions, RegistryLogin};

/// Added to the deadline of starts and stops, which the engine serves slowly when the host is busy.
const HEAVY: Duration = Duration::from_mins(1);

/// How long the processes of a container usually take to die once they are killed.
const DYING: Duration = Duration::from_secs(1);

/// Longest wait for a network that another engine of the swarm makes, and the pause between looks.
const NETWORK_WAIT: Duration = Duration::from_secs(30);
const NETWORK_PAUSE: Duration = Duration::from_millis(500);

/// Runs kernels as containers. Dropping it leaves them running.
#[derive(Debug, Clone)]
pub struct DockerBackend(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: DockerOptions,
    engine: Engine,
    capability: BackendCapability,
    /// Cores that the engine can give away.
    cores: f64,
    catalogue: Catalogue,
    exits: Exits,
    meters: Meters,
    turns: Turns,
    networks: Networks,
}

impl DockerBackend {
    /// Connects to the engine and asks what it can do.
    ///
    /// # Errors
    /// `Invalid` ([`code::CONFIG_INVALID`]) when the host is no unix socket, `Unavailable` when no engine answers there,
    /// `Timeout` when it hangs.
    pub async fn connect(options: DockerOptions) -> Result<Self> {
        let engine = Engine::connect(&options.host, options.call_timeout).await?;
        let info = engine.call(engine.docker.info()).await?;
        let inner = Inner {
            capability: capability(&info),
            cores: info.ncpu.and_then(|cores| u32::try_from(cores).ok()).map_or(f64::MAX, f64::from),
            options,
            engine,
            catalogue: Catalogue::default(),
            exits: Exits::default(),
            meters: Meters::default(),
            turns: Turns::default(),
            networks: Networks::default(),
        };
        inner.networks.sweep(&inner.engine, inner.options.agent.as_str()).await?;
        Ok(Self(Arc::new(inner)))
    }
}

/// What the engine says that this host lacks.
fn capability(info: &SystemInfo) -> BackendCapability {
    let has_filter = info.security_options.iter().flatten().any(|option| option.contains("name=seccomp"));
    let facts = [
        (info.memory_limit, true, "the container engine cannot limit memory"),
        (info.cpu_cfs_quota, true, "the container engine cannot limit processor time"),
        (info.pids_limit, true, "the container engine cannot limit the number of processes"),
        (info.swap_limit, false, "the container engine cannot limit swap"),
        (info.cpu_set, false, "the container engine cannot pin kernels to cores"),
        (Some(has_filter), false, "the container engine filters no system calls"),
    ];
    let missing = || facts.iter().filter(|(fact, ..)| *fact != Some(true));
    let mut capability = BackendCapability::default();
    capability.kind = "docker";
    capability.gaps = missing().map(|(.., gap)| (*gap).to_owned()).collect();
    capability.isolates = !missing().any(|(_, needed, _)| *needed);
    capability
}

impl Inner {
    /// Starts it in the network of its session. Nothing is left of the network when that fails.
    async fn start(&self, spec: &StartSpec) -> Result<Started> {
        let hold = self.networks.hold(spec).await;
        let started = self.start_in_network(spec).await;
        if hold.is_some() && started.is_err() {
            drop(hold);
            self.networks.release(&self.engine, spec.session).await;
        }
        started
    }

    async fn start_in_network(&self, spec: &StartSpec) -> Result<Started> {
        if let Some(started) = self.settle(spec).await? {
            return Ok(started);
        }
        self.networks.make(&self.engine, self.options.agent.as_str(), spec).await?;
        let body = container::definition(&self.options, spec, self.cores);
        let name = Some(container::name(spec.kernel));
        let options = CreateContainerOptions { name, ..CreateContainerOptions::default() };
        match self.engine.long_call(HEAVY, self.engine.docker.create_container(Some(options), body)).await {
            Ok(created) => self.run(created.id, spec).await,
            // Another process was faster, or the name belongs to a stranger.
            Err(failure) if failure.is_conflict() => {
                self.settle(spec).await?.ok_or_else(|| Error::from(failure).with("kernel", spec.kernel.id))
            }
            Err(failure) if failure.is_missing() => {
                let available = self.catalogue.images(&self.engine).await.unwrap_or_default();
                Err(image::not_found(&spec.image, "the container engine has no such image", &available))
            }
            Err(failure) => Err(Error::from(failure).with("kernel", spec.kernel.id)),
        }
    }

    /// Deals with the containers that the kernel has already: the same start is returned, an older one ended.
    async fn settle(&self, spec: &StartSpec) -> Result<Option<Started>> {
        let found = found::find(&self.engine, format!("{KERNEL}={}", spec.kernel.id)).await?;
        if found.iter().any(|found| found.kernel.generation > spec.kernel.generation) {
            return Err(Error::of(code::STALE_GENERATION, "a newer generation of the kernel was started")
                .with("kernel", spec.kernel.id));
        }
        let mut same = None;
        for found in found {
            if found.kernel == spec.kernel {
                same = Some(found);
            } else {
                self.stop(found.kernel, Duration::ZERO).await?;
                self.remove(found.kernel).await?;
            }
        }
        match same {
            Some(found) if found.stage == Stage::Created => self.run(found.id, spec).await.map(Some),
            Some(found) => self.describe(vec![found]).await.map(|mut described| described.pop()),
            None => Ok(None),
        }
    }

    /// Starts a container that was made. One that cannot be started is removed.
    async fn run(&self, id: String, spec: &StartSpec) -> Result<Started> {
        if let Err(failure) = self.launch(&id, spec).await {
            if matches!(failure, Failure::Refused(..)) {
                let _ = self.delete(&id, true).await;
            }
            let error =
                if network::is_awaited(spec, &failure) { network::never_made() } else { failure.into() };
            return Err(error.with("kernel", spec.kernel.id));
        }
        Ok(Started {
            kernel: spec.kernel,
            session: spec.session,
            container_id: id,
            endpoint: RunnerEndpoint::Unix(spec.control_dir.join(RUNNER_SOCKET)),
            exit: None,
            gaps: self.capability.gaps.clone(),
        })
    }

    /// Starts a container, once its network is there.
    async fn launch(&self, id: &str, spec: &StartSpec) -> Result<(), Failure> {
        let deadline = Instant::now() + NETWORK_WAIT;
        loop {
            let started = self.engine.docker.start_container(id, None::<StartContainerOptions>);
            match self.engine.long_call(HEAVY, started).await {
                Err(failure) if network::is_awaited(spec, &failure) && Instant::now() < deadline => {
                    tokio::time::sleep(NETWORK_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn stop(&self, kernel: KernelRef, grace: Duration) -> Result<()> {
        // The engine counts whole seconds.
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let t = Some(i32::try_from(seconds).unwrap_or(i32::MAX));
        let options = StopContainerOptions { t, ..StopContainerOptions::default() };
        let name = container::name(kernel);
        let stopped = self.engine.docker.stop_container(&name, Some(options));
        let stopped = self.engine.long_call(HEAVY.saturating_add(grace), stopped);
        tokio::pin!(stopped);
        let soon = tokio::time::timeout(grace.saturating_add(DYING), &mut stopped).await;
        let stopped = if let Ok(stopped) = soon {
            stopped
        } else {
            self.lift_cpu_limit(&name).await;
            stopped.await
        };
        self.meters.forget(kernel);
        match stopped {
            Err(failure) if !failure.is_missing() => Err(Error::from(failure).with("kernel", kernel.id)),
            _ => Ok(()),
        }
    }

    /// Lets a container that is being killed use all cores. Dying takes CPU time: hundreds of killed processes whose container
    /// has used up its share would take minutes.
    async fn lift_cpu_limit(&self, name: &str) {
        let all = Limits { cpu: Some(self.cores), ..Limits::default() };
        let update = ContainerUpdateBody {
            nano_cpus: container::nano_cpus(&all, self.cores),
            ..ContainerUpdateBody::default()
        };
        if let Err(failure) = self.engine.call(self.engine.docker.update_container(name, update)).await {
            tracing::debug!(container = name, error = %Error::from(failure), "the limit of cpu time is not lifted");
        }
    }

    async fn remove(&self, kernel: KernelRef) -> Result<()> {
        let session = found::clustered(&self.engine, &container::name(kernel)).await?;
        let removed = self.delete(&container::name(kernel), false).await;
        self.meters.forget(kernel);
        if let (Some(session), Ok(())) = (session, &removed) {
            self.networks.release(&self.engine, session).await;
        }
        match removed {
            Ok(()) => Ok(()),
            Err(failure) if failure.is_missing() => Ok(()),
            Err(Failure::Refused(409, message)) if message.contains("already in progress") => Ok(()),
            Err(failure) => Err(Error::from(failure).with("kernel", kernel.id)),
        }
    }

    /// Removes a container with its volumes; one that runs only by force.
    async fn delete(&self, name: &str, force: bool) -> Result<(), Failure> {
        let options = RemoveContainerOptions { v: true, force, ..RemoveContainerOptions::default() };
        self.engine.long_call(HEAVY, self.engine.docker.remove_container(name, Some(options))).await
    }

    /// Adds how they ended. Containers that are gone meanwhile are left out.
    async fn describe(&self, found: Vec<Found>) -> Result<Vec<Started>> {
        let exits = self.exits.of(&self.engine, &found).await?;
        let busy = self.turns.taken();
        let describe = |found: Found| {
            let exit = match found.stage {
                Stage::Ended => Some(exits.get(&found.id)?.clone()),
                Stage::Created if !busy.contains(&found.kernel.id) => Some(found::never_started()),
                Stage::Created | Stage::Running => None,
            };
            Some(found.started(exit, &self.capability.gaps))
        };
        Ok(found.into_iter().filter_map(describe).collect())
    }
}

#[async_trait]
impl KernelBackend for DockerBackend {
    fn capability(&self) -> BackendCapability {
        self.0.capability.clone()
    }

    async fn images(&self) -> Result<Vec<Image>> {
        self.0.catalogue.images(&self.0.engine).await
    }

    async fn prepare(&self, image: &str) -> Result<()> {
        image::check_reference(image)?;
        if image::is_present(&self.0.engine, image).await? {
            return Ok(());
        }
        if image::registry(image).is_some() {
            return pull::pull(&self.0.engine, &self.0.options, image).await;
        }
        let available = self.images().await?;
        Err(image::not_found(image, "the container engine has no such image", &available))
    }

    async fn start(&self, spec: &StartSpec) -> Result<Started> {
        let (inner, spec) = (Arc::clone(&self.0), spec.clone());
        // The turn comes first: whoever ends the kernel after this future was dropped waits for the start.
        let turn = inner.turns.take(spec.kernel.id).await;
        // To its end even if the caller stops waiting: half a start would have to be cleared away by someone.
        let started = tokio::spawn(async move {
            let _turn = turn;
            inner.start(&spec).await
        })
        .await;
        started
            .unwrap_or_else(|error| Err(Error::of(code::INTERNAL, "the start was cut short").source(error)))
    }

    async fn stop(&self, kernel: KernelRef, grace: Duration) -> Result<()> {
        let _turn = self.0.turns.take(kernel.id).await;
        self.0.stop(kernel, grace).await
    }

    async fn remove(&self, kernel: KernelRef) -> Result<()> {
        let _turn = self.0.turns.take(kernel.id).await;
        self.0.remove(kernel).await
    }

    async fn list(&self) -> Result<Vec<Started>> {
        let found = found::find(&self.0.engine, format!("{OWNER}={}", self.0.options.agent)).await?;
        self.0.networks.retry(&self.0.engine).await;
        self.0.describe(found).await
    }

    async fn exits(&self) -> Result<BoxStream<'static, ExitNotice>> {
        let watch = Watch::open(self.0.engine.clone(), self.0.options.agent.as_str()).await?;
        Ok(watch.notices().boxed())
    }

    async fn stats(&self, kernel: KernelRef) -> Result<KernelStats> {
        self.0.meters.read(&self.0.engine, kernel).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_lacks_is_told() {
        let full = SystemInfo {
            memory_limit: Some(true),
            swap_limit: Some(true),
            cpu_cfs_quota: Some(true),
            cpu_set: Some(true),
            pids_limit: Some(true),
            security_options: Some(vec!["name=seccomp,profile=default".into()]),
            ..SystemInfo::default()
        };
        let found = capability(&full);
        assert_eq!((found.kind, found.isolates, found.gaps.len()), ("docker", true, 0));
        let found = capability(&SystemInfo { swap_limit: Some(false), ..full.clone() });
        assert!(found.isolates && found.gaps == ["the container engine cannot limit swap"]);
        let found = capability(&SystemInfo { pids_limit: None, security_options: None, ..full });
        assert!(!found.isolates && found.gaps.len() == 2);
    }
}
