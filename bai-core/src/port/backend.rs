//! Kernel back ends: what starts and ends the isolated thing a kernel runs in.
//!
//! The agent prepares the scratch directory and speaks to the runner; a back end only knows how to run the runner
//! binary in a sandbox, a container or a pod, and how to find again what it started.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::error::Result;
use crate::execution::KernelStats;
use crate::id::SessionId;
use crate::image::Image;
use crate::port::agent::KernelRef;
use crate::port::cluster::ClusterNetwork;
use crate::session::KernelExit;

/// What to start, with everything on the host already in place.
#[derive(Debug, Clone, PartialEq)]
pub struct StartSpec {
    /// Identity and generation, written to the labels of the thing started.
    pub kernel: KernelRef,
    /// Session, for the labels.
    pub session: SessionId,
    /// Agent, for the labels: a back end shared by several agents lists only its own.
    pub agent: String,
    /// Canonical image name.
    pub image: String,
    /// Host name inside the kernel.
    pub hostname: String,
    /// Runner binary on the host.
    pub runner: PathBuf,
    /// Directory on the host that becomes `/home/work`.
    pub work_dir: PathBuf,
    /// Directory on the host that becomes `/home/config`, read-only.
    pub config_dir: PathBuf,
    /// Private directory on the host that becomes `/opt/kernel/control`: runner configuration and socket.
    pub control_dir: PathBuf,
    /// Limits.
    pub limits: Limits,
    /// Labels of the image that matter to the start (`runtime-type`, `runtime-path`).
    pub image_labels: BTreeMap<String, String>,
    /// Ports inside the kernel to publish on the host, each with its host port.
    pub ports: Vec<(u16, u16)>,
    /// User and group id that user code runs as.
    pub uid_gid: (u32, u32),
    /// The network that it shares with the other kernels of its session; `None` when there are none. A back end that cannot
    /// give it refuses the start (`Unsupported`).
    pub cluster: Option<ClusterNetwork>,
}

/// Resource limits of a kernel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// Cores, possibly fractional.
    pub cpu: Option<f64>,
    /// Core numbers to pin to; empty for no pinning.
    pub cpuset: Vec<u32>,
    /// Bytes of memory, swap excluded.
    pub memory: Option<u64>,
    /// Bytes of `/dev/shm`.
    pub shm: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// How the runner of a started kernel is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunnerEndpoint {
    /// Its unix socket on the host.
    Unix(PathBuf),
    /// There is none: the simulated back end answers by itself.
    Simulated,
}

/// Something a back end started.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    /// Identity and generation, from its labels.
    pub kernel: KernelRef,
    /// Session, from its labels.
    pub session: SessionId,
    /// Identity in the back end.
    pub container_id: String,
    /// How to reach its runner.
    pub endpoint: RunnerEndpoint,
    /// `None` while it runs.
    pub exit: Option<KernelExit>,
    /// What its isolation lacks, in words.
    pub gaps: Vec<String>,
}

/// What a back end can do on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendCapability {
    /// Name of the kind: `process`, `docker` or `simulated`.
    pub kind: &'static str,
    /// What the isolation lacks on this host, in words; empty when nothing.
    pub gaps: Vec<String>,
    /// Kernels are in other pid and mount namespaces and under the limits asked for.
    pub isolates: bool,
}

/// An end noticed by a back end.
#[derive(Debug, Clone, PartialEq)]
pub struct ExitNotice {
    /// What ended.
    pub kernel: KernelRef,
    /// How.
    pub exit: KernelExit,
}

/// Runs kernels. All implementations pass `bai_testkit::kernel_backend`.
#[async_trait]
pub trait KernelBackend: fmt::Debug + Send + Sync + 'static {
    /// What it can do on this host.
    fn capability(&self) -> BackendCapability;

    /// The images it can start now, with labels.
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot be reached (so for all methods here).
    async fn images(&self) -> Result<Vec<Image>>;

    /// Makes the image present. `NotFound` when it cannot be had.
    async fn prepare(&self, image: &str) -> Result<()>;

    /// Starts the runner. Idempotent: what already runs under the same kernel and generation is returned. Dropping the
    /// future leaves nothing behind, or something that `list` shows.
    async fn start(&self, spec: &StartSpec) -> Result<Started>;

    /// Ends it: SIGTERM, and SIGKILL to everything in it after the grace time. Returns when it has ended.
    /// Idempotent; unknown kernels are fine.
    async fn stop(&self, kernel: KernelRef, grace: std::time::Duration) -> Result<()>;

    /// Removes what is left of something that has ended. Idempotent.
    async fn remove(&self, kernel: KernelRef) -> Result<()>;

    /// Everything this agent's back end ever started and has not removed, running or ended: survives a crash of the agent.
    async fn list(&self) -> Result<Vec<Started>>;

    /// Ends from the moment the call returns. A lost notice is found again by `list`.
    async fn exits(&self) -> Result<BoxStream<'static, ExitNotice>>;

    /// Current statistics.
    async fn stats(&self, kernel: KernelRef) -> Result<KernelStats>;
}
