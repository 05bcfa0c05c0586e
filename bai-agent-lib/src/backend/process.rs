//! The process back end: kernels as sandboxes of the host's own programs. Nothing needs to be installed.
//!
//! The sandboxes and their limits are described in [`bai_kernel_lib::sandbox`]. Images are the interpreters and compilers
//! found in `PATH`; the runner is the binary named by each start.
//!
//! Kernels of one session share the host's network like all others, so their host names lead to the loopback address: two
//! of them cannot listen on the same port, and kernels of other sessions reach it too. Sessions whose kernels are on
//! several agents are refused.
//!
//! Nothing of a kernel's state is kept in this process. A kernel's control directory `<scratch>/<kernel>/control` holds
//! the record of its sandbox, and the record counts only while its process number, start time and namespaces all match
//! a living process. So a back end opened later, after a crash, finds the same kernels:
//!
//! ```no_run
//! # async fn example() -> bai_core::error::Result<()> {
//! use bai_agent_lib::backend::process::{ProcessBackend, ProcessOptions};
//! use bai_core::port::KernelBackend;
//!
//! let options = ProcessOptions::new("agent1", "/var/lib/bai/scratch", "/usr/lib/bai/bai-krunner");
//! let backend = ProcessBackend::open(options).await?;
//! for image in backend.images().await? {
//!     println!("{} {:?}", image.name, image.aliases);
//! }
//! # Ok(())
//! # }
//! ```

mod discover;
mod doctor;
mod found;
mod launch;
mod pidfd;
mod usage;
mod watch;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bai_core::error::{Error, ErrorKind, Result, code};
use bai_core::execution::KernelStats;
use bai_core::id::KernelId;
use bai_core::image::Image;
use bai_core::port::KernelBackend;
use bai_core::port::agent::KernelRef;
use bai_core::port::backend::{BackendCapability, ExitNotice, StartSpec, Started};
use bai_core::status::ClusterMode;
use futures_util::StreamExt;
use futures_util::future::join;
use futures_util::stream::BoxStream;
use nix::sys::signal::Signal;
use parking_lot::Mutex;
use tokio_stream::wrappers::BroadcastStream;

use self::discover::Environment;
use self::found::Found;
use self::pidfd::ProcessFd;
use self::watch::Watches;
use crate::cgroup::{self, Cgroups};
use crate::stats::Sample;

pub use self::doctor::{Facility, doctor};
pub use bai_kernel_lib::sandbox::Network;

/// Name of the runner's configuration in the control directory. The agent writes it before a start.
pub const RUNNER_CONFIG: &str = "runner.json";

/// Name of the runner's socket in the control directory; the configuration names it below
/// [`CONTROL_DIR`](bai_kernel_lib::sandbox::CONTROL_DIR).
pub const RUNNER_SOCKET: &str = "runner.sock";

/// Name of the sandbox's specification in the control directory.
const SPEC_FILE: &str = "sandbox-spec.json";

/// No start takes longer: a control group that is still empty at this age belongs to none.
const LONGEST_START: Duration = Duration::from_mins(10);

/// How long processes may take to go after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of a [`ProcessBackend`].
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// Name of the agent: other agents' sandboxes in the same directory are left alone.
    pub agent: String,
    /// Directory with one directory for each kernel. It is hidden from all kernels.
    pub scratch_root: PathBuf,
    /// The runner binary, for the probe made at the start.
    pub runner: PathBuf,
    /// Directories to look for programs in, separated by colons. Default `/usr/local/bin:/usr/bin:/bin`.
    pub path: String,
    /// Parent of the kernels' control groups. Default `bai/<agent>`.
    pub cgroup_parent: String,
    /// Network of the kernels. Default: the host's.
    pub network: Network,
    /// Further directories of the host shown read-only to every kernel. Default none.
    pub expose: Vec<PathBuf>,
    /// Further paths kept from every kernel, where an exposed directory would show them. Default none.
    pub hide: Vec<PathBuf>,
    /// Bytes of a kernel's `/tmp`. Default 1 GiB.
    pub tmp_bytes: u64,
    /// Bytes of the largest file a kernel may write. Default 256 GiB.
    pub max_file_bytes: u64,
}

impl ProcessOptions {
    /// The defaults.
    pub fn new(agent: &str, scratch_root: impl Into<PathBuf>, runner: impl Into<PathBuf>) -> Self {
        Self {
            agent: agent.to_owned(),
            scratch_root: scratch_root.into(),
            runner: runner.into(),
            path: "/usr/local/bin:/usr/bin:/bin".into(),
            cgroup_parent: format!("bai/{agent}"),
            network: Network::default(),
            expose: Vec::new(),
            hide: Vec::new(),
            tmp_bytes: 1 << 30,
            max_file_bytes: 256 << 30,
        }
    }
}

/// Runs kernels as sandboxes. Dropping it leaves them running.
#[derive(Debug, Clone)]
pub struct ProcessBackend(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: ProcessOptions,
    cgroups: Option<Arc<dyn Cgroups>>,
    environments: Vec<Environment>,
    capability: BackendCapability,
    watches: Watches,
    /// Serialises starts, stops and removals of one kernel.
    busy: Mutex<HashMap<KernelId, Arc<tokio::sync::Mutex<()>>>>,
}

impl ProcessBackend {
    /// Looks at the host: its programs, its control groups, and whether a sandbox can be built. Where none can, the back end
    /// opens all the same and says why in its capability.
    ///
    /// # Errors
    /// `Unavailable` when the scratch directory cannot be made.
    pub async fn open(options: ProcessOptions) -> Result<Self> {
        std::fs::create_dir_all(&options.scratch_root).map_err(failed)?;
        let discovery = discover::discover(&options.path);
        let ((cgroups, probe), environments) = join(probe(&options), discovery).await;
        let mut gaps = host_gaps(&options, cgroups.is_some());
        let isolates = probe.is_ok();
        match probe {
            Ok(more) => gaps.extend(more),
            Err(error) => gaps.push(doctor::explain(&error)),
        }
        let environments = if isolates { environments } else { Vec::new() };
        let mut capability = BackendCapability::default();
        (capability.kind, capability.gaps, capability.isolates) = ("process", gaps, isolates);
        let inner = Inner {
            options,
            cgroups,
            environments,
            capability,
            watches: Watches::new(),
            busy: Mutex::default(),
        };
        inner.sweep();
        Ok(Self(Arc::new(inner)))
    }
}

/// The control groups that can be used, and what a sandbox in them lacks on this host.
async fn probe(options: &ProcessOptions) -> (Option<Arc<dyn Cgroups>>, io::Result<Vec<String>>) {
    let mut cgroups = cgroup::detect(&options.cgroup_parent);
    let mut probe = launch::probe(options, cgroups.as_deref()).await;
    if probe.is_err() && cgroups.take().is_some() {
        // Groups can be made, but perhaps processes cannot be moved into them.
        probe = launch::probe(options, None).await;
    }
    (cgroups, probe)
}

/// What is missing for reasons outside the sandbox itself.
fn host_gaps(options: &ProcessOptions, has_cgroups: bool) -> Vec<String> {
    let mut gaps = Vec::new();
    if options.network == Network::Host {
        gaps.push("the network is the host's: services on its loopback address can be reached".to_owned());
    }
    if !has_cgroups {
        gaps.push(
            "no control groups: memory is limited per process and processor time not at all".to_owned(),
        );
    }
    gaps
}

fn failed(error: io::Error) -> Error {
    Error::of(code::BACKEND_FAILED, error.to_string()).source(error)
}

/// How long ago a directory was made or last changed; nothing when that cannot be told.
fn age(path: &std::path::Path) -> Duration {
    let changed = std::fs::metadata(path).and_then(|found| found.modified()).ok();
    changed.and_then(|at| at.elapsed().ok()).unwrap_or_default()
}

/// Name of a kernel's control group.
fn group_name(kernel: KernelRef) -> String {
    format!("kernel-{}-{}", kernel.id, kernel.generation)
}

impl Inner {
    fn environment(&self, image: &str) -> Result<&Environment> {
        let matches = |found: &&Environment| {
            found.image.name == image || found.image.aliases.iter().any(|alias| alias == image)
        };
        self.environments.iter().find(matches).ok_or_else(|| {
            let names: Vec<&str> = self.environments.iter().map(|found| found.image.name.as_str()).collect();
            Error::of(code::IMAGE_NOT_FOUND, "this host has no such program")
                .with("image", image)
                .with("available", names.join(", "))
        })
    }

    /// Waits until nothing else is done to the kernel.
    async fn lock(&self, kernel: KernelId) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut busy = self.busy.lock();
            busy.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(busy.entry(kernel).or_default())
        };
        lock.lock_owned().await
    }

    /// All sandboxes of this agent; the running ones are watched from here on.
    fn scan(&self) -> Vec<Found> {
        let found = Found::scan(&self.options.scratch_root, &self.options.agent);
        for sandbox in &found {
            self.watches.add(sandbox);
        }
        found
    }

    fn find(&self, kernel: KernelRef) -> Option<Found> {
        let control = self.options.scratch_root.join(kernel.id.to_string()).join("control");
        Found::load(&control)
            .into_iter()
            .chain(Found::scan(&self.options.scratch_root, &self.options.agent))
            .find(|found| found.kernel == kernel)
    }

    /// Removes control groups left by a crash between making the group and recording the sandbox. Young ones may be of a
    /// start that is in progress elsewhere: agents of several data directories may have the same name, and so the same parent.
    fn sweep(&self) {
        let Some(cgroups) = &self.cgroups else { return };
        let known: Vec<String> = self.scan().iter().map(|found| group_name(found.kernel)).collect();
        for group in cgroups.groups().unwrap_or_default() {
            let left = group.starts_with("kernel-") && !known.contains(&group);
            let old = || cgroups.places(&group).first().is_some_and(|(_, path)| age(path) > LONGEST_START);
            if left && old() && cgroups.pids(&group).is_ok_and(|pids| pids.is_empty()) {
                let _ = cgroups.remove(&group);
            }
        }
    }

    /// The caller holds the kernel's lock.
    async fn start(&self, spec: &StartSpec) -> Result<Started> {
        if !self.capability.isolates {
            let why = self.capability.gaps.last().cloned().unwrap_or_default();
            return Err(Error::new(ErrorKind::Unsupported, why));
        }
        if spec.cluster.as_ref().is_some_and(|cluster| cluster.mode == ClusterMode::MultiNode) {
            let why = "this agent runs kernels as processes, which share no network with those of other agents: multi-node \
                       sessions need Docker engines in a swarm";
            return Err(Error::new(ErrorKind::Unsupported, why));
        }
        let environment = self.environment(&spec.image)?;
        if let Some(found) = self.settle(spec).await? {
            return Ok(found.started());
        }
        let group = group_name(spec.kernel);
        if let Err(error) = self.build(environment, spec, &group).await {
            self.clear(spec, &group).await;
            return Err(failed(error).with("kernel", spec.kernel.id));
        }
        let found = Found::load(&spec.control_dir).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        self.watches.add(&found);
        Ok(found.started())
    }

    async fn build(&self, environment: &Environment, spec: &StartSpec, group: &str) -> io::Result<()> {
        let mut made = launch::make_group(self.cgroups.as_deref(), group, &spec.limits)?;
        made.add_gaps(host_gaps(&self.options, self.cgroups.is_some()));
        let sandbox = launch::sandbox_spec(&self.options, environment, spec, made);
        launch::launch(&spec.runner, &sandbox).await.map(drop)
    }

    /// Deals with what the control directory holds already: the same start is returned, an older one ended.
    async fn settle(&self, spec: &StartSpec) -> Result<Option<Found>> {
        let Some(found) = Found::load(&spec.control_dir) else { return Ok(None) };
        if found.kernel == spec.kernel && found.record.ready {
            return Ok(Some(found));
        }
        if found.kernel.id == spec.kernel.id && found.kernel.generation > spec.kernel.generation {
            return Err(Error::of(code::STALE_GENERATION, "a newer generation of the kernel was started")
                .with("kernel", spec.kernel.id));
        }
        // A predecessor, or a start that a crash of the agent cut short.
        self.end(&found, Duration::ZERO).await?;
        self.destroy_group(&group_name(found.kernel)).await?;
        Found::erase(&spec.control_dir).map_err(failed)?;
        Ok(None)
    }

    /// Leaves nothing of a start that failed.
    async fn clear(&self, spec: &StartSpec, group: &str) {
        if let Some(found) = Found::load(&spec.control_dir) {
            let _ = self.end(&found, Duration::ZERO).await;
        }
        let _ = self.destroy_group(group).await;
        let _ = Found::erase(&spec.control_dir);
    }

    /// Ends a sandbox and waits until it and its monitor are gone.
    async fn end(&self, found: &Found, grace: Duration) -> Result<()> {
        let record = &found.record;
        if let Some(process) = ProcessFd::open(record.pid, record.start_time).map_err(failed)? {
            let mut ended = false;
            if !grace.is_zero() {
                process.signal(Signal::SIGTERM).map_err(failed)?;
                ended = tokio::time::timeout(grace, process.ended()).await.is_ok();
            }
            if !ended {
                if let Some(cgroups) = &self.cgroups {
                    let _ = cgroups.lift_cpu_limit(&group_name(found.kernel));
                }
                // The end of PID 1 is the end of everything in its namespace.
                process.signal(Signal::SIGKILL).map_err(failed)?;
            }
        }
        match tokio::time::timeout(KILL_TIMEOUT, watch::ended(found)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(Error::of(code::KERNEL_DESTRUCTION, "processes of the kernel do not die")
                .with("kernel", found.kernel.id)),
        }
    }

    async fn destroy_group(&self, group: &str) -> Result<()> {
        let Some(cgroups) = self.cgroups.clone() else { return Ok(()) };
        let group = group.to_owned();
        let destroyed = tokio::task::spawn_blocking(move || cgroups.destroy(&group, KILL_TIMEOUT)).await;
        destroyed.map_err(io::Error::other).and_then(|done| done).map_err(failed)
    }

    async fn remove(&self, kernel: KernelRef) -> Result<()> {
        let _guard = self.lock(kernel.id).await;
        if let Some(found) = self.find(kernel) {
            if found.exit().is_none() {
                return Err(
                    Error::new(ErrorKind::Conflict, "the kernel still runs").with("kernel", kernel.id)
                );
            }
            Found::erase(&found.control).map_err(failed)?;
        }
        self.destroy_group(&group_name(kernel)).await
    }

    fn stats(&self, kernel: KernelRef) -> Result<KernelStats> {
        let missing = || Error::of(code::KERNEL_NOT_FOUND, "no such kernel here").with("kernel", kernel.id);
        let sample = if let Some(cgroups) = &self.cgroups {
            let usage = cgroups.usage(&group_name(kernel)).map_err(|error| missing().source(error))?;
            Sample::from(usage)
        } else {
            let found = self.find(kernel).filter(Found::is_alive).ok_or_else(missing)?;
            usage::of_namespace(found.record.pid, found.record.namespaces.pid)
        };
        Ok(sample.into_stats())
    }
}

/// Runs a step to its end even if the caller stops waiting.
async fn detached<T: Send + 'static>(step: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let joined = tokio::spawn(step).await;
    joined.unwrap_or_else(|error| Err(Error::of(code::INTERNAL, "a step was cut short").source(error)))
}

#[async_trait]
impl KernelBackend for ProcessBackend {
    fn capability(&self) -> BackendCapability {
        self.0.capability.clone()
    }

    async fn images(&self) -> Result<Vec<Image>> {
        Ok(self.0.environments.iter().map(|found| found.image.clone()).collect())
    }

    async fn prepare(&self, image: &str) -> Result<()> {
        self.0.environment(image).map(drop)
    }

    async fn start(&self, spec: &StartSpec) -> Result<Started> {
        // Taken before the start goes its own way: a stop that follows a dropped start waits for it.
        let guard = self.0.lock(spec.kernel.id).await;
        let (inner, spec) = (Arc::clone(&self.0), spec.clone());
        detached(async move {
            let _guard = guard;
            inner.start(&spec).await
        })
        .await
    }

    async fn stop(&self, kernel: KernelRef, grace: Duration) -> Result<()> {
        let inner = Arc::clone(&self.0);
        detached(async move {
            let _guard = inner.lock(kernel.id).await;
            match inner.find(kernel) {
                Some(found) => inner.end(&found, grace).await,
                None => Ok(()),
            }
        })
        .await
    }

    async fn remove(&self, kernel: KernelRef) -> Result<()> {
        let inner = Arc::clone(&self.0);
        detached(async move { inner.remove(kernel).await }).await
    }

    async fn list(&self) -> Result<Vec<Started>> {
        Ok(self.0.scan().iter().map(Found::started).collect())
    }

    async fn exits(&self) -> Result<BoxStream<'static, ExitNotice>> {
        let notices = BroadcastStream::new(self.0.watches.subscribe());
        self.0.scan();
        Ok(notices.filter_map(|notice| async { notice.ok() }).boxed())
    }

    async fn stats(&self, kernel: KernelRef) -> Result<KernelStats> {
        self.0.stats(kernel)
    }
}
