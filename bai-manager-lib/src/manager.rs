//! The manager as a whole: its back ends, services and background work.

pub(crate) mod core;
mod options;
pub(crate) mod tasks;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use bai_core::port::agent::{AgentReport, ReportReply};
use bai_core::port::store::SessionEvent;
use bai_core::port::{
    AgentStore, ConfigStore, Counter, Events, IdentityStore, ImageStore, Lease, LogStore, ManagerApi,
    SessionStore,
};
use bai_core::{Clock, Error, ErrorKind, Result, Secret};
use tokio::sync::{broadcast, mpsc};

use self::core::{Core, DirtyGroups, Doubt};
use self::tasks::Tasks;
use crate::agent::{AgentDialer, AgentService, AgentTable};
use crate::identity::IdentityService;
use crate::idle::IdleBook;
use crate::image::ImageService;
use crate::reconcile::callback::Notice;
use crate::reconcile::{callback, follow, idle, leader, publish, resync, schedule, sweep};
use crate::scheduling::settings::SettingsCache;
use crate::scheduling::turns;
use crate::session::SessionService;
use crate::session::commit::{self, Committer, Job};
use crate::session::registry::Registry;

pub use options::ManagerOptions;

/// Events a subscriber may lag behind.
const EVENT_BACKLOG: usize = 8192;
/// Events that wait to be published; beyond that the sweep of the store publishes them.
const OUTBOX: usize = 8192;
/// Callbacks that wait.
const CALLBACKS: usize = 1024;

/// What a manager keeps its state in and speaks through. Clones share the back ends.
#[derive(Debug, Clone)]
pub struct Backends {
    /// Sessions.
    pub sessions: Arc<dyn SessionStore>,
    /// Domains, projects, users, keypairs, policies, resource groups.
    pub identities: Arc<dyn IdentityStore>,
    /// Agents.
    pub agents: Arc<dyn AgentStore>,
    /// Images.
    pub images: Arc<dyn ImageStore>,
    /// Console logs of dead kernels.
    pub logs: Arc<dyn LogStore>,
    /// Events between managers.
    pub events: Arc<dyn Events>,
    /// Shared configuration.
    pub config: Arc<dyn ConfigStore>,
    /// Which manager plans.
    pub lease: Arc<dyn Lease>,
    /// Rate limits.
    pub counter: Arc<dyn Counter>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Secret of the cluster, which keys of sessions are derived from: the same for all managers, and for ever. It must not
    /// be in the store.
    pub secret: Secret<[u8; 32]>,
}

/// The control plane. Clones share it; its background work ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Manager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    core: Arc<Core>,
    sessions: SessionService,
    agents: AgentService,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.core.tasks.abort();
    }
}

impl Manager {
    /// Loads the living sessions and starts the background work.
    ///
    /// # Errors
    /// `Unavailable` when a back end cannot be reached.
    pub async fn start(
        backends: Backends,
        dialer: Arc<dyn AgentDialer>,
        options: ManagerOptions,
    ) -> Result<Self> {
        let (commits, jobs) = Committer::new();
        let (outbox, events) = mpsc::channel(OUTBOX);
        let (callbacks, notices) = mpsc::channel(CALLBACKS);
        let core = Arc::new(Core {
            registry: Registry::default(),
            commits,
            agents: AgentTable::new(dialer, backends.clock.now()),
            images: ImageService::new(backends.images.clone()),
            identities: IdentityService::new(backends.clone(), options.identity_cache),
            groups: DirtyGroups::default(),
            inbox: crate::scheduling::Inbox::default(),
            sokovan: crate::scheduling::Groups::default(),
            settings: SettingsCache::new(options.identity_cache, options.slot_priority.clone()),
            histories: crate::scheduling::history::Histories::default(),
            turns: turns::Turns::default(),
            queues: crate::reconcile::queue::AgentQueues::default(),
            tasks: Tasks::default(),
            hub: broadcast::channel(EVENT_BACKLOG).0,
            outbox,
            callbacks,
            announcing: parking_lot::Mutex::default(),
            leader: AtomicBool::new(false),
            doubt: Doubt::default(),
            queries: parking_lot::Mutex::default(),
            idle: IdleBook::default(),
            backends,
            options,
        });
        let manager = Self {
            inner: Arc::new(Inner {
                sessions: SessionService::new(core.clone()),
                agents: AgentService::new(core.clone()),
                core,
            }),
        };
        manager.follow_others().await?;
        manager.load().await?;
        manager.spawn_all(jobs, events, notices);
        Ok(manager)
    }

    async fn follow_others(&self) -> Result<()> {
        let core = &self.inner.core;
        if !core.is_exclusive() {
            let events = resync::listen(core).await?;
            core.tasks.spawn(resync::follow_others(core.clone(), events));
        }
        Ok(())
    }

    async fn load(&self) -> Result<()> {
        let core = &self.inner.core;
        resync::try_all(core).await?;
        tracing::info!(
            manager = core.options.id,
            sessions = core.registry.all().len(),
            agents = core.agents.list().len(),
            "manager started"
        );
        Ok(())
    }

    fn spawn_all(
        &self,
        jobs: mpsc::Receiver<Job>,
        events: mpsc::Receiver<Arc<SessionEvent>>,
        notices: mpsc::Receiver<Notice>,
    ) {
        let core = &self.inner.core;
        let tasks = &core.tasks;
        tasks.spawn_sink(commit::serve(core.clone(), jobs));
        tasks.spawn_sink(publish::run(core.clone(), events));
        tasks.spawn(callback::run(core.clone(), notices));
        tasks.spawn(publish::sweep(core.clone()));
        tasks.spawn(schedule::run(core.clone()));
        tasks.spawn(sweep::run(core.clone()));
        tasks.spawn(sweep::keep_pace(core.clone()));
        tasks.spawn(idle::run(core.clone()));
        tasks.spawn(turns::run(core.clone()));
        tasks.spawn(resync::run(core.clone()));
        tasks.spawn(leader::run(core.clone()));
    }

    /// Sessions.
    pub fn sessions(&self) -> &SessionService {
        &self.inner.sessions
    }

    /// Identities.
    pub fn identities(&self) -> &IdentityService {
        &self.inner.core.identities
    }

    /// Images.
    pub fn images(&self) -> &ImageService {
        &self.inner.core.images
    }

    /// Agents.
    pub fn agents(&self) -> &AgentService {
        &self.inner.agents
    }

    /// The back ends.
    pub fn backends(&self) -> &Backends {
        &self.inner.core.backends
    }

    /// The settings.
    pub fn options(&self) -> &ManagerOptions {
        &self.inner.core.options
    }

    /// Whether this manager is the one that plans.
    pub fn is_leader(&self) -> bool {
        self.inner.core.is_leader()
    }

    /// Events of sessions from now on. A receiver that lags loses the oldest.
    pub fn subscribe_sessions(&self) -> broadcast::Receiver<Arc<SessionEvent>> {
        self.inner.core.hub.subscribe()
    }

    /// Ends the background work: what is in progress is finished, and after a few seconds given up. No task is left.
    /// Sessions are left as they are; the next manager goes on with them.
    pub async fn shutdown(&self) {
        self.inner.core.tasks.shutdown().await;
        tracing::info!(manager = self.inner.core.options.id, "manager stopped");
    }
}

#[async_trait]
impl ManagerApi for Manager {
    async fn report(&self, report: AgentReport) -> Result<ReportReply> {
        if self.inner.core.tasks.is_stopping() {
            return Err(Error::new(ErrorKind::Unavailable, "the manager is shutting down"));
        }
        follow::report(&self.inner.core, report).await
    }
}
