//! The session aggregate: a session with its kernels, stored and changed as one.
//!
//! Every change goes through [`Session::advance`] and its siblings, which keep status, history and
//! allocation consistent, and is then committed by [`crate::port::SessionStore::commit`] under the version it
//! was read at.

mod transition;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::id::{AccessKey, AgentId, KernelId, ProjectId, SessionId, UserId};
use crate::slots::ResourceSlots;
use crate::status::{ClusterMode, KernelStatus, SessionResult, SessionStatus, SessionType};

pub use transition::KernelExit;

/// When each status was last entered, in the order of entry.
pub type StatusHistory = IndexMap<String, Timestamp>;

/// Who a session belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Keypair that owns the session; names are unique per access key.
    pub access_key: AccessKey,
    /// User behind the keypair.
    pub user_id: UserId,
    /// Email of the user.
    pub email: String,
    /// Domain of the session.
    pub domain: String,
    /// Project of the session.
    pub project_id: ProjectId,
    /// Name of the project.
    pub project: String,
}

/// What the creator asked for, apart from what the scheduler looks at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionSpec {
    /// Free text of the user.
    pub tag: Option<String>,
    /// Command of a batch session, run by a shell.
    pub startup_command: Option<String>,
    /// Script run once in the main kernel before anything else; plain text.
    pub bootstrap_script: Option<String>,
    /// URL that receives life cycle notifications.
    pub callback_url: Option<String>,
    /// Environment variables of the user's processes.
    pub environ: BTreeMap<String, String>,
    /// Folder mounts as the user named them.
    pub mounts: Vec<String>,
    /// Folder name to path inside the kernel.
    pub mount_map: BTreeMap<String, String>,
    /// Options such as `shmem`.
    pub resource_opts: Map<String, Value>,
    /// Ports the user's own services listen on.
    pub preopen_ports: Vec<u16>,
    /// Sessions that must succeed first.
    pub dependencies: Vec<SessionId>,
    /// Agents the session must run on; empty for no preference.
    pub designated_agents: Vec<AgentId>,
    /// Longest run time of a batch session's command, in seconds.
    pub batch_timeout: Option<u64>,
}

/// A port of a kernel that clients may open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Name of the service.
    pub name: String,
    /// `http`, `tcp`, `pty` or `preopen`.
    pub protocol: String,
    /// Ports inside the kernel.
    pub container_ports: Vec<u16>,
    /// Ports on the agent's host, one for each container port.
    pub host_ports: Vec<u16>,
}

/// One kernel of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    /// Identity.
    pub id: KernelId,
    /// `main` or `sub`.
    pub role: String,
    /// 1-based number within its role.
    pub idx: u32,
    /// 0-based number within the session.
    pub local_rank: u32,
    /// Host name inside the cluster, such as `main1`.
    pub hostname: String,
    /// Canonical image name.
    pub image: String,
    /// Architecture of the image, such as `x86_64`.
    pub architecture: String,
    /// Registry of the image; empty for local ones.
    pub registry: String,
    /// Agent that holds, or held, the kernel.
    pub agent: Option<AgentId>,
    /// Counts the starts: 1 for the first container, one more for each restart or rescheduling.
    pub generation: u32,
    /// Status.
    pub status: KernelStatus,
    /// Machine-readable reason of the status.
    pub status_info: Option<String>,
    /// Structured detail of the status.
    pub status_data: Map<String, Value>,
    /// When each status was last entered.
    pub status_history: StatusHistory,
    /// What was asked for.
    pub requested: ResourceSlots,
    /// What is held on the agent: created with the placement, empty again once the kernel is dead.
    pub allocated: ResourceSlots,
    /// Identity in the back end (container id, process id).
    pub container_id: Option<String>,
    /// Host that service ports are reached at.
    pub kernel_host: Option<String>,
    /// Ports that clients may open.
    pub service_ports: Vec<ServicePort>,
    /// Devices given to the kernel.
    pub attached_devices: Map<String, Value>,
    /// Exit code, once known.
    pub exit_code: Option<i32>,
    /// Statistics of the last measurement, kept when the kernel ends.
    pub last_stat: Option<Value>,
    /// When the kernel first ran.
    pub started_at: Option<Timestamp>,
    /// When the kernel died.
    pub terminated_at: Option<Timestamp>,
}

/// A session with its kernels. The first kernel is the main one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Identity.
    pub id: SessionId,
    /// Counts the commits; the guard of every change. 0 before the first insert.
    pub version: i64,
    /// Name, unique among the living sessions of an access key.
    pub name: String,
    /// Owner.
    pub owner: Owner,
    /// Resource group that schedules the session.
    pub resource_group: String,
    /// Type.
    pub session_type: SessionType,
    /// Placement mode.
    pub cluster_mode: ClusterMode,
    /// 0 to 100, higher first; 10 by default.
    pub priority: i32,
    /// Status.
    pub status: SessionStatus,
    /// Machine-readable reason of the status.
    pub status_info: Option<String>,
    /// Structured detail of the status (`scheduler`, `error`, `kernel` …).
    pub status_data: Map<String, Value>,
    /// When each status was last entered.
    pub status_history: StatusHistory,
    /// Result of a batch session.
    pub result: SessionResult,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// Not to be started before.
    pub starts_at: Option<Timestamp>,
    /// When it died.
    pub terminated_at: Option<Timestamp>,
    /// The rest of the request.
    pub spec: SessionSpec,
    /// The kernels, main first; never empty.
    pub kernels: Vec<Kernel>,
}

impl Session {
    /// The kernel that code, files and logs belong to.
    ///
    /// # Panics
    /// Never: a session is created with at least one kernel, and stores refuse one without.
    pub fn main(&self) -> &Kernel {
        &self.kernels[0]
    }

    /// The kernel with `id`.
    pub fn kernel(&self, id: KernelId) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.id == id)
    }

    /// Sum of what the kernels asked for.
    pub fn requested(&self) -> ResourceSlots {
        self.kernels.iter().map(|kernel| &kernel.requested).sum()
    }

    /// Sum of what the kernels hold.
    pub fn allocated(&self) -> ResourceSlots {
        self.kernels.iter().map(|kernel| &kernel.allocated).sum()
    }

    /// When the current status was entered.
    pub fn status_changed(&self) -> Timestamp {
        self.status_history.get(self.status.as_str()).copied().unwrap_or(self.created_at)
    }
}

impl Kernel {
    /// When the current status was entered.
    pub fn status_changed(&self) -> Option<Timestamp> {
        self.status_history.get(self.status.as_str()).copied()
    }
}
