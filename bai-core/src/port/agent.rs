//! The two directions between manager and agent.
//!
//! [`AgentApi`] carries commands down; [`ManagerApi`] carries reports up. Both are a direct call in one
//! process and HTTP between processes.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

use crate::error::Result;
use crate::execution::{ExecuteReply, ExecuteRequest, FileEntry, KernelStats, UploadFile};
use crate::id::{AgentId, KernelId, SessionId};
use crate::image::Image;
use crate::port::cluster::ClusterSpec;
use crate::session::{KernelExit, ServicePort};
use crate::slots::{ResourceSlots, SlotTypes};

/// Which start of a kernel is meant. Every call about a kernel names it, so that a late call cannot touch a
/// successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KernelRef {
    /// Kernel.
    pub id: KernelId,
    /// Its generation, counted by the manager.
    pub generation: u32,
}

/// Everything an agent needs to start a kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelSpec {
    /// Identity and generation.
    pub kernel: KernelRef,
    /// Session it belongs to.
    pub session: SessionId,
    /// Name of the session.
    pub session_name: String,
    /// `interactive`, `batch` or `inference`.
    pub session_type: String,
    /// Canonical image name.
    pub image: String,
    /// Labels of the image.
    pub image_labels: BTreeMap<String, String>,
    /// `main` or `sub`.
    pub role: String,
    /// Host name inside the cluster.
    pub hostname: String,
    /// Resources it may use.
    pub slots: ResourceSlots,
    /// Options such as `shmem` (bytes or size text).
    pub resource_opts: Map<String, Value>,
    /// Environment variables for the user's processes, the manager's own included.
    pub environ: BTreeMap<String, String>,
    /// Script run once before anything else.
    pub bootstrap_script: Option<String>,
    /// Ports the user's own services listen on.
    pub preopen_ports: Vec<u16>,
    /// Command of a batch session's main kernel. The agent starts it when told by [`AgentApi::start_batch`].
    pub startup_command: Option<String>,
    /// Longest run time of the startup command in seconds.
    pub batch_timeout: Option<u64>,
    /// The other kernels of the session; `None` when there are none.
    #[serde(default)]
    pub cluster: Option<ClusterSpec>,
}

/// Stage of a kernel on its agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "lowercase")]
pub enum KernelStage {
    /// Accepted; scratch and sandbox are being prepared.
    Preparing,
    /// The image is being fetched.
    Pulling,
    /// The runner answers.
    Running(Box<RunningKernel>),
    /// Being ended.
    Terminating,
    /// Ended. Reported until [`AgentApi::forget`] is called.
    Exited(KernelExit),
    /// Could not be started. Reported until [`AgentApi::forget`] is called.
    Failed {
        /// Code of the error.
        code: String,
        /// Why, in words.
        message: String,
    },
}

/// Facts of a running kernel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunningKernel {
    /// Identity in the back end.
    pub container_id: String,
    /// Host that its service ports are reached at.
    pub kernel_host: String,
    /// Ports that clients may open.
    pub service_ports: Vec<ServicePort>,
    /// Devices given to it.
    pub attached_devices: Map<String, Value>,
    /// What its sandbox lacks on this host, in words; empty when nothing.
    pub isolation_gaps: Vec<String>,
    /// Processes of this start that were killed because the kernel's memory was used up.
    #[serde(default)]
    pub oom_kills: u64,
}

/// How the startup command of a batch session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchOutcome {
    /// Exit code; -2 when it took too long.
    pub exit_code: i32,
    /// `task-finished`, `task-failed` or `task-timeout`.
    pub reason: String,
}

/// One kernel in an agent's report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelReport {
    /// Identity and generation.
    pub kernel: KernelRef,
    /// Session it belongs to.
    pub session: SessionId,
    /// Stage.
    pub stage: KernelStage,
    /// Set once the startup command has ended.
    pub batch: Option<BatchOutcome>,
    /// Its last statistics.
    pub stats: Option<KernelStats>,
    /// Milliseconds in which no code has run in it; 0 while code runs, `None` when that is not known.
    #[serde(default)]
    pub unused_ms: Option<u64>,
}

/// What an agent says about itself: enough to register it. The kernel list is complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentReport {
    /// Identity.
    pub agent: AgentId,
    /// Number of this run of the agent: of two, the run that began later has the larger one. Agents take the microseconds since the
    /// Unix epoch at their start.
    pub incarnation: u64,
    /// Increases with every report of a run.
    pub seq: u64,
    /// Address of its API; empty for one in the same process.
    pub addr: String,
    /// Host name given to clients.
    pub public_host: String,
    /// Region, free text.
    pub region: String,
    /// Resource group it serves.
    pub resource_group: String,
    /// Capacity.
    pub capacity: ResourceSlots,
    /// Types of its slots.
    pub slot_types: SlotTypes,
    /// Architecture.
    pub architecture: String,
    /// Version.
    pub version: String,
    /// Compute plugins: name to version and facts.
    pub compute_plugins: Value,
    /// Node statistics `{"node": …, "devices": …}`.
    pub live_stat: Value,
    /// What its sandbox lacks on this host, in words.
    pub isolation_gaps: Vec<String>,
    /// Images it can start kernels from; `None` when unchanged since the last accepted report.
    pub images: Option<Vec<Image>>,
    /// All kernels it knows, ended ones not yet forgotten included.
    pub kernels: Vec<KernelReport>,
    /// The agent is going down on purpose; its kernels keep running.
    pub leaving: bool,
}

/// Answer to a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportReply {
    /// The manager does not know this agent's images: send them with the next report.
    pub send_images: bool,
    /// Kernels the manager does not know. The agent ends them once they have been unknown for its grace period.
    pub unknown: Vec<KernelRef>,
}

/// Manager → agent. All implementations pass `bai_testkit::agent_api`.
///
/// Calls about a kernel fail with `NotFound` ([`crate::error::code::KERNEL_NOT_FOUND`]) when the agent does not
/// know it, and with `Conflict` ([`crate::error::code::STALE_GENERATION`]) when it has a newer generation.
#[async_trait]
pub trait AgentApi: fmt::Debug + Send + Sync + 'static {
    /// Accepts kernels to be started and returns at once; progress comes by reports. Idempotent by kernel and
    /// generation. A newer generation of a known kernel replaces it in the same scratch directory (restart).
    async fn create_kernels(&self, specs: Vec<KernelSpec>) -> Result<()>;

    /// Ends a kernel: accepted at once, the end comes by a report. Idempotent. An unknown kernel is `NotFound`. Its programs get
    /// the agent's grace time, and none when the reason is `force-terminated`.
    async fn destroy_kernel(&self, kernel: KernelRef, reason: &str) -> Result<()>;

    /// Removes all traces of an ended kernel: scratch, log, record. Idempotent; unknown kernels are fine. A kernel that has not
    /// ended is left alone (`Conflict`).
    async fn forget(&self, kernel: KernelRef) -> Result<()>;

    /// Starts the startup command of a batch kernel. Idempotent: it never runs twice in one generation.
    async fn start_batch(&self, kernel: KernelRef) -> Result<()>;

    /// One step of the execute state machine. Runs of one kernel are answered first in, first out. Dropping the
    /// future loses nothing: output stays for the next `continue`.
    async fn execute(&self, kernel: KernelRef, request: ExecuteRequest) -> Result<ExecuteReply>;

    /// Interrupts the run in progress, as Ctrl-C would.
    async fn interrupt(&self, kernel: KernelRef) -> Result<()>;

    /// Completions for `code` at the position given in `options` (`row`, `col`, `line`, `post`).
    async fn complete(
        &self,
        kernel: KernelRef,
        code: &str,
        options: &Map<String, Value>,
    ) -> Result<Vec<String>>;

    /// The console log, at most the last 10 MiB.
    async fn logs(&self, kernel: KernelRef) -> Result<Vec<u8>>;

    /// Writes files below the home directory; parents are created, existing files replaced. Each file is either whole or absent.
    /// `Invalid` ([`crate::error::code::PATH_ESCAPES`]) for a path that leaves it, and nothing is written then.
    async fn upload(&self, kernel: KernelRef, files: Vec<UploadFile>) -> Result<()>;

    /// A tar archive of the file or directory at `path`, at most 1 MiB. `Invalid` ([`crate::error::code::FILE_NOT_FOUND`],
    /// [`crate::error::code::FILE_TOO_LARGE`], [`crate::error::code::PATH_ESCAPES`]).
    async fn download(&self, kernel: KernelRef, path: &str) -> Result<Vec<u8>>;

    /// The bytes of one regular file, at most 1 MiB. Errors as for `download`.
    async fn download_single(&self, kernel: KernelRef, path: &str) -> Result<Vec<u8>>;

    /// The entries of the directory at `path`, not recursive, symbolic links not followed. Errors as for `download`.
    async fn list_files(&self, kernel: KernelRef, path: &str) -> Result<Vec<FileEntry>>;
}

/// Agent → manager.
#[async_trait]
pub trait ManagerApi: fmt::Debug + Send + Sync + 'static {
    /// Registers the agent and takes its report. An older report than one already taken is ignored.
    ///
    /// # Errors
    /// `Unavailable` when no manager can be reached: the agent tries again with its next report.
    async fn report(&self, report: AgentReport) -> Result<ReportReply>;
}
