//! Sessions that wait or run.

use bai_core::slots::ResourceSlots;
use bai_core::status::{ClusterMode, SessionType};
use bai_core::{AgentId, SessionId, Timestamp};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Owner;

/// A session as the scheduler sees it, whether it waits or runs.
#[derive(Debug, Clone)]
pub struct Session {
    /// Identity.
    pub id: SessionId,
    /// Whose limits it counts against.
    pub owner: Owner,
    /// Higher ones are served first.
    pub priority: i32,
    /// Compared only between a session and those that might give way to it: preemption takes from strictly lower ones.
    pub job_priority: i32,
    /// Whether it may be preempted.
    pub preemptible: bool,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// Type.
    pub session_type: SessionType,
    /// A helper session of the system: counted apart, never preempted.
    pub private: bool,
    /// Whether all kernels share an agent.
    pub cluster_mode: ClusterMode,
    /// Not to be started before; for batch sessions.
    pub starts_at: Option<Timestamp>,
    /// It ends this long after its start at the latest: batch timeout or session lifetime, whichever is shorter.
    pub max_runtime: Option<TimeDelta>,
    /// What must succeed first.
    pub dependencies: Vec<Dependency>,
    /// Agents it should or must run on; empty for any. A strict multi-node session that names as many agents as it has
    /// kernels gets them one by one.
    pub designated: Vec<AgentId>,
    /// How the designated agents are meant.
    pub designation: Designation,
    /// Agents that failed to start it: taken last.
    pub avoid: Vec<AgentId>,
    /// The replicas it belongs to.
    pub group: Option<SessionGroup>,
    /// The room that others make for it, if it waits for that.
    pub claim: Option<Claim>,
    /// It pushes nobody out before, since it has given up a claim.
    pub no_preemption_before: Option<Timestamp>,
    /// Its kernels, main first.
    pub kernels: Vec<Kernel>,
}

/// Room that is kept for a session that waits, until those that give way to it have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// One agent per kernel.
    pub agents: Vec<AgentId>,
    /// Those that go.
    pub victims: Vec<SessionId>,
    /// When it was made: of several claims to the same room the first is served first.
    pub since: Timestamp,
    /// It is given up when the victims have not ended by then.
    pub expires: Timestamp,
}

/// Whether designated agents are a wish or a must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Designation {
    /// No other agent will do.
    #[default]
    Strict,
    /// Others are taken when none of them has room.
    Preferred,
}

/// Identity of a session group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionGroupId(pub Uuid);

/// Sessions that know of each other, such as the replicas of a model service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionGroup {
    /// Identity.
    pub id: SessionGroupId,
    /// Apart or together.
    pub direction: Direction,
    /// Whether a wait is better than the wrong agent.
    pub strict: bool,
}

/// How the members of a session group are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// On agents with the fewest other members; strict: with none.
    Spread,
    /// On agents with the most other members; strict: with some, as soon as there are any.
    Pack,
}

/// What one kernel needs.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Amounts. A slot named with zero is one that the kernel wants to leave to others.
    pub slots: ResourceSlots,
    /// Architecture of its image, by any of its names.
    pub architecture: String,
    /// Canonical image name.
    pub image: String,
    /// Least amounts that the image accepts.
    pub minimum: ResourceSlots,
    /// Most amounts that the image accepts, of the slots that are named.
    pub maximum: ResourceSlots,
}

impl Kernel {
    /// A kernel of an image without limits.
    pub fn new(slots: ResourceSlots, architecture: impl Into<String>, image: impl Into<String>) -> Self {
        Self {
            slots,
            architecture: architecture.into(),
            image: image.into(),
            minimum: ResourceSlots::new(),
            maximum: ResourceSlots::new(),
        }
    }
}

/// A session that must succeed first.
#[derive(Debug, Clone)]
pub struct Dependency {
    /// Identity.
    pub id: SessionId,
    /// Name.
    pub name: String,
    /// How far it is.
    pub state: DependencyState,
}

/// How far a dependency is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependencyState {
    /// Not ended.
    Waiting,
    /// Ended with success.
    Succeeded,
    /// Can no longer succeed.
    Failed,
}

/// A session that holds agents, in any state from scheduled to terminating.
#[derive(Debug, Clone)]
pub struct Running {
    /// The session.
    pub session: Session,
    /// One agent per kernel; `None` for a kernel that has ended.
    pub agents: Vec<Option<AgentId>>,
    /// When it was scheduled or started.
    pub since: Timestamp,
    /// When it ends at the latest, if that is known.
    pub ends_at: Option<Timestamp>,
    /// It is being ended: it holds its agents but counts against no limit any more.
    pub leaving: bool,
}
