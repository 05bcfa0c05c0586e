//! What callers of the session service pass and receive.

use std::collections::BTreeMap;
use std::sync::Arc;

use bai_core::id::{AgentId, SessionId};
use bai_core::session::{ServicePort, Session};
use bai_core::status::{ClusterMode, SessionStatus, SessionType};
use bai_core::{KernelId, Timestamp};
use serde_json::{Map, Value};
use std::time::Duration;

/// A request for a new session (spec rest-manager.md, section 2.1), with names and aliases already resolved to fields.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CreateSession {
    /// Name, unique among the owner's living sessions.
    pub name: String,
    /// Canonical image name or alias.
    pub image: String,
    /// Architecture; aliases such as `amd64` are accepted.
    pub architecture: String,
    /// Type.
    pub session_type: SessionType,
    /// Project name.
    pub project: String,
    /// Domain name.
    pub domain: String,
    /// Number of kernels.
    pub cluster_size: u32,
    /// Placement mode.
    pub cluster_mode: ClusterMode,
    /// Priority, 0 to 100; `None` for the default of 10.
    pub priority: Option<i32>,
    /// Resource group; `None` for the first one allowed.
    pub resource_group: Option<String>,
    /// Amounts per slot as the user wrote them; `None` means the image's minimum.
    pub resources: Option<Map<String, Value>>,
    /// Options such as `shmem`.
    pub resource_opts: Map<String, Value>,
    /// Environment variables.
    pub environ: BTreeMap<String, String>,
    /// Folder mounts.
    pub mounts: Vec<String>,
    /// Folder name to path.
    pub mount_map: BTreeMap<String, String>,
    /// Ports of the user's own services.
    pub preopen_ports: Vec<u16>,
    /// Agents the session must run on (superadmin only).
    pub agent_list: Vec<AgentId>,
    /// Free text.
    pub tag: Option<String>,
    /// Command of a batch session.
    pub startup_command: Option<String>,
    /// Script run once in the main kernel, plain text.
    pub bootstrap_script: Option<String>,
    /// ISO time, or a duration from now such as `5m`; batch only.
    pub starts_at: Option<String>,
    /// Longest run time of a batch command.
    pub batch_timeout: Option<Duration>,
    /// Names or ids of sessions that must succeed first.
    pub dependencies: Vec<String>,
    /// URL that receives life cycle notifications.
    pub callback_url: Option<String>,
    /// Return as soon as the session is in the queue.
    pub enqueue_only: bool,
    /// Longest time to wait for `RUNNING`; zero waits without limit.
    pub max_wait: Duration,
    /// Return a living session of the same name and image instead of failing.
    pub reuse: bool,
}

impl CreateSession {
    /// A request with the documented defaults: interactive, one kernel, host architecture, project and domain `default`.
    pub fn new(name: impl Into<String>, image: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            image: image.into(),
            architecture: std::env::consts::ARCH.to_owned(),
            session_type: SessionType::Interactive,
            project: "default".into(),
            domain: "default".into(),
            cluster_size: 1,
            cluster_mode: ClusterMode::SingleNode,
            priority: None,
            resource_group: None,
            resources: None,
            resource_opts: Map::new(),
            environ: BTreeMap::new(),
            mounts: Vec::new(),
            mount_map: BTreeMap::new(),
            preopen_ports: Vec::new(),
            agent_list: Vec::new(),
            tag: None,
            startup_command: None,
            bootstrap_script: None,
            starts_at: None,
            batch_timeout: None,
            dependencies: Vec::new(),
            callback_url: None,
            enqueue_only: false,
            max_wait: Duration::ZERO,
            reuse: true,
        }
    }
}

/// How a create request ended.
#[derive(Debug, Clone)]
pub struct CreateOutcome {
    /// The session.
    pub session: Arc<Session>,
    /// Whether it is new.
    pub created: bool,
    /// Whether the wait ended by `max_wait` (the reply's status is then `TIMEOUT`).
    pub timed_out: bool,
}

/// How one session was destroyed.
#[derive(Debug, Clone, PartialEq)]
pub struct DestroyOutcome {
    /// The session.
    pub id: SessionId,
    /// `cancelled` or `terminated`.
    pub status: &'static str,
    /// Last statistics of the main kernel.
    pub stats: Option<Value>,
}

/// A row of the `match` reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionMatch {
    /// Identity.
    pub id: SessionId,
    /// Name.
    pub name: String,
    /// Status.
    pub status: SessionStatus,
}

/// A node of the dependency graph.
#[derive(Debug, Clone, PartialEq)]
pub struct DependencyNode {
    /// Identity.
    pub id: SessionId,
    /// Name.
    pub name: String,
    /// Status.
    pub status: SessionStatus,
    /// When the status was entered.
    pub status_changed: Timestamp,
    /// What it waits for.
    pub depends_on: Vec<DependencyNode>,
}

/// The app services of a session's main kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionServices {
    /// Main kernel.
    pub kernel: KernelId,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}
