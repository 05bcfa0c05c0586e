//! Rows: sessions, identities, agents, images and logs.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::{AccessKey, AgentId, KernelId, ProjectId, SessionId, UserId};
use crate::identity::{Credential, Domain, Keypair, KeypairPolicy, Project, ResourceGroup, User};
use crate::image::Image;
use crate::query::{Expr, Order};
use crate::session::Session;
use crate::slots::{ResourceSlots, SlotTypes};
use crate::status::{SessionStatus, named_enum};

/// What a store implementation promises beyond the traits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreCapability {
    /// No other process writes to it, so a cache in front of it never goes stale.
    pub exclusive: bool,
    /// How many calls that write are best under way at a time; 0 stands for 1.
    pub parallel_commits: usize,
}

/// An event to append with a commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewEvent {
    /// Name on the wire, such as `session_started` or `kernel_preparing`.
    pub name: String,
    /// Kernel concerned, if one.
    pub kernel: Option<KernelId>,
    /// Machine-readable reason.
    pub reason: String,
    /// Exit code, for events that end something.
    pub exit_code: Option<i32>,
}

/// An event of a session's life: the history row and what subscribers receive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionEvent {
    /// Position in the store, increasing in commit order within one session.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// Session.
    pub session: SessionId,
    /// Its name at that time.
    pub session_name: String,
    /// Owner of the session.
    pub access_key: AccessKey,
    /// User of the session.
    pub user_id: UserId,
    /// Domain of the session.
    pub domain: String,
    /// Project of the session.
    pub project_id: ProjectId,
    /// Status of the session after the commit.
    pub status: SessionStatus,
    /// What happened.
    #[serde(flatten)]
    pub event: NewEvent,
    /// Role of the kernel concerned.
    pub cluster_role: Option<String>,
    /// Number of the kernel within its role.
    pub cluster_idx: Option<u32>,
}

/// One guarded change of a session.
#[derive(Debug, Clone)]
pub struct SessionChange {
    /// The new state; its `version` is the one it was read at.
    pub session: Session,
    /// Events to append.
    pub events: Vec<NewEvent>,
    /// Refuse with `Conflict` ([`crate::error::code::OVER_CAPACITY`]) when an agent of the session would then hold more
    /// than its capacity. Set when the change places kernels.
    pub guard_capacity: bool,
}

/// A committed change.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The session as stored, under its new version.
    pub session: Session,
    /// The appended events.
    pub events: Vec<SessionEvent>,
}

/// Who is asked for, and how much of it. All given conditions must hold.
#[derive(Debug, Clone, Default)]
pub struct SessionQuery {
    /// Only of this keypair.
    pub access_key: Option<AccessKey>,
    /// Only of this domain.
    pub domain: Option<String>,
    /// Only of this project.
    pub project: Option<ProjectId>,
    /// Only in one of these statuses; empty for all.
    pub statuses: Vec<SessionStatus>,
    /// Only with exactly this name.
    pub name: Option<String>,
    /// Filter expression over the fields of graphql-manager.md, section 6.
    pub filter: Option<Expr>,
    /// Order; empty means greatest(created, terminated) descending.
    pub order: Vec<Order>,
    /// Rows to skip.
    pub offset: u64,
    /// Most rows to return.
    pub limit: Option<u64>,
}

/// A page of rows.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// How many rows match without offset and limit.
    pub total: u64,
}

/// Rows of sessions. All implementations pass `bai_testkit::session_store`.
#[async_trait]
pub trait SessionStore: fmt::Debug + Send + Sync + 'static {
    /// What this implementation promises.
    fn capability(&self) -> StoreCapability;

    /// Inserts new sessions (version 0 → 1) with their events, in one transaction. Each succeeds or fails on its own; a failed
    /// one changes nothing.
    ///
    /// The inner errors: `AlreadyExists` ([`crate::error::code::SESSION_EXISTS`], context `session`) when an id is taken, or
    /// when a living session of the same access key has the same name; `Conflict`
    /// ([`crate::error::code::OVER_CAPACITY`]) by the capacity guard; `Invalid` for a session without kernels.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached: then none was inserted, or the outcome is unknown.
    async fn insert(&self, new: Vec<SessionChange>) -> Result<Vec<Result<Committed>>>;

    /// Replaces each session whose stored version is still the one given, and appends its events, in one
    /// transaction. Each change succeeds or fails on its own; a failed one changes nothing.
    ///
    /// The inner errors: `Conflict` ([`crate::error::code::SESSION_MOVED_ON`]) when the version has moved on or the new name
    /// is taken, `Conflict` ([`crate::error::code::OVER_CAPACITY`]) by the capacity guard, `NotFound` when there is no such
    /// session.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached: then none was committed, or the outcome is unknown.
    async fn commit(&self, changes: Vec<SessionChange>) -> Result<Vec<Result<Committed>>>;

    /// The session with `id`, dead ones included.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached.
    async fn get(&self, id: SessionId) -> Result<Option<Session>>;

    /// Ids and versions of all living sessions, in no order: enough to tell which copies are out of date.
    async fn versions(&self) -> Result<Vec<(SessionId, i64)>>;

    /// The sessions that match.
    ///
    /// # Errors
    /// `Invalid` for an unknown field in filter or order.
    async fn find(&self, query: &SessionQuery) -> Result<Page<Session>>;

    /// History of a session, oldest first.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached.
    async fn history(&self, id: SessionId) -> Result<Vec<SessionEvent>>;

    /// Events not yet marked as published, oldest first, at most `limit`: what a crash left behind.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached.
    async fn unpublished(&self, limit: u32) -> Result<Vec<SessionEvent>>;

    /// Marks events as published. Safe to call twice.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached.
    async fn mark_published(&self, seqs: &[i64]) -> Result<()>;

    /// Deletes dead sessions, with history and logs, that ended before `before`; at most `limit`. Returns how many.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached.
    async fn purge(&self, before: Timestamp, limit: u32) -> Result<u64>;
}

/// Rows of identities. All implementations pass `bai_testkit::identity_store`.
#[async_trait]
pub trait IdentityStore: fmt::Debug + Send + Sync + 'static {
    /// Inserts or replaces a domain.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached (so for all methods here).
    async fn put_domain(&self, row: &Domain) -> Result<()>;
    /// Inserts or replaces a project with its members.
    async fn put_project(&self, row: &Project, members: &[UserId]) -> Result<()>;
    /// Inserts or replaces a user. `AlreadyExists` when email or user name belong to another.
    async fn put_user(&self, row: &User) -> Result<()>;
    /// Inserts or replaces a keypair. `NotFound` when its user does not exist.
    async fn put_keypair(&self, row: &Keypair) -> Result<()>;
    /// Inserts or replaces a keypair policy.
    async fn put_policy(&self, row: &KeypairPolicy) -> Result<()>;
    /// Inserts or replaces a resource group.
    async fn put_resource_group(&self, row: &ResourceGroup) -> Result<()>;
    /// The keypair, active or not, with its owner and policy.
    async fn credential(&self, access_key: &AccessKey) -> Result<Option<Credential>>;
    /// A user by id, email or user name.
    async fn user(&self, key: &UserKey) -> Result<Option<User>>;
    /// Everything else in one read: it is small and cached by the callers.
    async fn directory(&self) -> Result<Directory>;
}

/// How a user is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserKey {
    /// By identity.
    Id(UserId),
    /// By email, exactly.
    Email(String),
    /// By user name, exactly.
    Username(String),
}

/// All domains, projects with members, policies, resource groups and keypairs without their secrets' use.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Directory {
    /// Domains by name.
    pub domains: BTreeMap<String, Domain>,
    /// Projects with their members.
    pub projects: Vec<(Project, Vec<UserId>)>,
    /// Policies by name.
    pub policies: BTreeMap<String, KeypairPolicy>,
    /// Resource groups by name.
    pub resource_groups: BTreeMap<String, ResourceGroup>,
    /// Users.
    pub users: Vec<User>,
    /// Keypairs.
    pub keypairs: Vec<Keypair>,
}

named_enum! {
    /// Status of an agent.
    AgentStatus {
        /// Sends heartbeats.
        Alive = "ALIVE",
        /// Its heartbeats stopped.
        Lost = "LOST",
        /// Said that it restarts.
        Restarting = "RESTARTING",
        /// Said goodbye.
        Terminated = "TERMINATED",
    }
}

/// A worker node as the manager knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Identity.
    pub id: AgentId,
    /// Status.
    pub status: AgentStatus,
    /// When the status was entered.
    pub status_changed: Timestamp,
    /// Region, free text.
    pub region: String,
    /// Resource group it serves.
    pub resource_group: String,
    /// Whether the scheduler may use it.
    pub schedulable: bool,
    /// Address its API is reached at; empty for one in the same process.
    pub addr: String,
    /// Host name given to clients.
    pub public_host: String,
    /// Capacity.
    pub capacity: ResourceSlots,
    /// Types of its slots.
    pub slot_types: SlotTypes,
    /// Architecture such as `x86_64`.
    pub architecture: String,
    /// Version of the agent.
    pub version: String,
    /// Name and version of each compute plugin.
    pub compute_plugins: Value,
    /// First heartbeat.
    pub first_contact: Timestamp,
    /// Last heartbeat.
    pub last_seen: Timestamp,
    /// When it was lost.
    pub lost_at: Option<Timestamp>,
    /// Node statistics of the last heartbeat, `{"node": …, "devices": …}`.
    pub live_stat: Value,
    /// What the node's sandbox lacks, in words.
    pub isolation_gaps: Vec<String>,
}

/// Rows of agents. All implementations pass `bai_testkit::agent_store`.
#[async_trait]
pub trait AgentStore: fmt::Debug + Send + Sync + 'static {
    /// Inserts or replaces an agent row. `first_contact` and `schedulable` of an existing row are kept.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached (so for all methods here).
    async fn put_agent(&self, row: &Agent) -> Result<()>;
    /// All agents, ordered by id.
    async fn agents(&self) -> Result<Vec<Agent>>;
    /// Sets whether the scheduler may use the agent. `NotFound` for an unknown one.
    async fn set_schedulable(&self, id: &AgentId, schedulable: bool) -> Result<()>;
}

/// Rows of images, and which agent has which. All implementations pass `bai_testkit::image_store`.
#[async_trait]
pub trait ImageStore: fmt::Debug + Send + Sync + 'static {
    /// Replaces the list of images that an agent has.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached (so for all methods here).
    async fn put_agent_images(&self, agent: &AgentId, images: &[Image]) -> Result<()>;
    /// All known images, one row per name and architecture, ordered by name.
    async fn images(&self) -> Result<Vec<Image>>;
    /// The agents that have the image `name`.
    async fn agents_with(&self, name: &str) -> Result<Vec<AgentId>>;
}

/// Console logs of dead kernels. All implementations pass `bai_testkit::log_store`.
#[async_trait]
pub trait LogStore: fmt::Debug + Send + Sync + 'static {
    /// Keeps the log of a kernel, replacing an earlier one.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be reached (so for all methods here).
    async fn put_log(&self, kernel: KernelId, session: SessionId, log: &[u8]) -> Result<()>;
    /// The log of a kernel, if one was kept.
    async fn log(&self, kernel: KernelId) -> Result<Option<Vec<u8>>>;
}
