//! What the scheduler looks at.

use std::collections::BTreeSet;

use bai_core::slots::ResourceSlots;
use bai_core::status::{ClusterMode, SessionType};
use bai_core::{AccessKey, AgentId, ProjectId, SessionId, Timestamp, UserId};

use crate::quota::Quotas;

/// One resource group at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The moment.
    pub now: Timestamp,
    /// Agents that may be used. Their order decides ties.
    pub agents: Vec<AgentState>,
    /// Sessions that wait, in any order.
    pub pending: Vec<Pending>,
    /// Limits and what counts against them.
    pub quotas: Quotas,
}

impl Snapshot {
    /// An empty group.
    pub fn at(now: Timestamp) -> Self {
        Self { now, agents: Vec::new(), pending: Vec::new(), quotas: Quotas::default() }
    }
}

/// An agent that is alive and schedulable.
#[derive(Debug, Clone)]
pub struct AgentState {
    /// Identity.
    pub id: AgentId,
    /// Architecture.
    pub architecture: String,
    /// What it has.
    pub capacity: ResourceSlots,
    /// What living kernels hold of it.
    pub held: ResourceSlots,
    /// Names of the images it can start; `None` when it can get any.
    pub images: Option<BTreeSet<String>>,
}

/// A session that waits.
#[derive(Debug, Clone)]
pub struct Pending {
    /// Identity.
    pub id: SessionId,
    /// Keypair whose limits apply.
    pub access_key: AccessKey,
    /// User whose limits apply.
    pub user: UserId,
    /// Project whose limits apply.
    pub project: ProjectId,
    /// Domain whose limits apply.
    pub domain: String,
    /// Higher first.
    pub priority: i32,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// Type.
    pub session_type: SessionType,
    /// Whether all kernels share an agent.
    pub cluster_mode: ClusterMode,
    /// Not to be started before.
    pub starts_at: Option<Timestamp>,
    /// What must succeed first.
    pub dependencies: Vec<Dependency>,
    /// Agents it must run on: one for a single-node session, one per kernel for a multi-node one; empty for any.
    pub designated: Vec<AgentId>,
    /// Agents that failed to start it: used only when no other fits.
    pub avoid: Vec<AgentId>,
    /// Its kernels, main first.
    pub kernels: Vec<KernelRequest>,
}

impl Pending {
    /// What all kernels ask for together.
    pub fn requested(&self) -> ResourceSlots {
        self.kernels.iter().map(|kernel| &kernel.slots).sum()
    }
}

/// What one kernel needs.
#[derive(Debug, Clone)]
pub struct KernelRequest {
    /// Amounts.
    pub slots: ResourceSlots,
    /// Architecture of its image.
    pub architecture: String,
    /// Canonical image name.
    pub image: String,
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
