//! Putting a cluster together.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bai_agent_lib::AgentOptions;
use bai_client::Credentials;
use bai_core::error::code;
use bai_core::identity::Keypair;
use bai_core::memory::{MemoryCounter, MemoryEvents, MemoryLease};
use bai_core::port::agent::ReportReply;
use bai_core::port::{AgentApi, AgentReport, ManagerApi};
use bai_core::{Error, Result, Secret, SystemClock};
use bai_manager_lib::agent::AgentDialer;
use bai_manager_lib::identity::Bootstrap;
use bai_manager_lib::{Backends, Manager, ManagerOptions};
use bai_store::{Options, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Cluster, router};
use crate::runtime::{Prepared, Runtime};
use crate::secrets::{Secrets, private_dir, unusable};

/// How often a core is given away on a cluster of one node: its sessions idle most of the time.
const CPU_OVERCOMMIT: u32 = 4;

/// Longest time the agent of this process may take to report.
const REGISTRATION: Duration = Duration::from_secs(10);

/// Options of a cluster in this process.
#[derive(Debug)]
pub struct Builder {
    data: Option<PathBuf>,
    runtime: Runtime,
    cpu_overcommit: u32,
}

impl Default for Builder {
    fn default() -> Self {
        Self { data: None, runtime: Runtime::default(), cpu_overcommit: CPU_OVERCOMMIT }
    }
}

impl Builder {
    /// Keeps the state in `dir`, and takes over what is there. Without it everything is gone when the cluster is shut down.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data = Some(dir.into());
        self
    }

    /// What runs the kernels; the process sandbox by default.
    #[must_use]
    pub fn runtime(mut self, runtime: Runtime) -> Self {
        self.runtime = runtime;
        self
    }

    /// How often each core may be given away, 1 to 10; 4 by default.
    #[must_use]
    pub fn cpu_overcommit(mut self, factor: u32) -> Self {
        self.cpu_overcommit = factor.clamp(1, 10);
        self
    }

    /// Starts the cluster and returns when it takes sessions.
    ///
    /// # Errors
    /// `Invalid` when the data directory cannot be used, `Unavailable` when another process uses it or the engine
    /// cannot be reached, `Unsupported` when the host lacks what the runtime needs.
    pub async fn build(self) -> Result<Cluster> {
        let (data, ephemeral) = data_dir(self.data)?;
        let secrets = Secrets::load_or_generate(&data)?;
        let key = secrets.store_key()?;
        let store = Store::open_sqlite(data.join("bai.db"), Options::new(key)).await?;
        let dialer = Arc::new(LocalDialer::default());
        // Only now: the store is ours alone, and with it the kernels of this directory.
        let prepared = prepare_node(&data, &self.runtime, self.cpu_overcommit);
        let started = Box::pin(start_manager(backends(&store, key), dialer.clone(), secrets.admin_password));
        let (prepared, (manager, keypair)) = tokio::try_join!(prepared, started)?;
        let (registration, registered) = Registration::new(manager.clone());
        let node = prepared.start(Arc::new(registration)).await?;
        dialer.0.send_replace(Some(node.agent.clone()));
        registered.done().await?;
        let stop = CancellationToken::new();
        Ok(Cluster {
            router: router(&manager, &stop),
            credentials: Credentials::new(keypair.access_key.as_str(), keypair.secret_key.reveal()),
            manager,
            store,
            node,
            data,
            stop,
            ephemeral,
        })
    }
}

fn backends(store: &Store, key: [u8; 32]) -> Backends {
    let store = Arc::new(store.clone());
    Backends {
        sessions: store.clone(),
        identities: store.clone(),
        agents: store.clone(),
        images: store.clone(),
        logs: store.clone(),
        config: store,
        events: Arc::new(MemoryEvents::new()),
        lease: Arc::new(MemoryLease::new()),
        counter: Arc::new(MemoryCounter::new()),
        clock: Arc::new(SystemClock),
        secret: key.into(),
    }
}

async fn prepare_node(data: &Path, runtime: &Runtime, cpu_overcommit: u32) -> Result<Prepared> {
    let mut options = AgentOptions::new("i-local", data.join("agent"));
    options.runner =
        bai_krunner_bin::install(&data.join("bin")).map_err(|cause| unusable(&data.join("bin"), cause))?;
    options.cpu_overcommit = cpu_overcommit;
    Prepared::new(runtime, options).await
}

/// Starts the manager, with a superadmin when there is none yet.
async fn start_manager(
    backends: Backends,
    dialer: Arc<LocalDialer>,
    admin_password: Secret,
) -> Result<(Manager, Keypair)> {
    let mut options = ManagerOptions::default();
    options.local_callbacks = true; // its users have the run of this host anyway
    let manager = Manager::start(backends, dialer, options).await?;
    let admin = Bootstrap {
        email: "admin@bai.local".into(),
        password: admin_password,
        access_key: None,
        secret_key: None,
    };
    let keypair = manager.identities().bootstrap(admin).await?.keypair;
    Ok((manager, keypair))
}

/// The manager, with an ear for the report that makes the agent's images known: from then on a session can be created.
#[derive(Debug)]
struct Registration {
    manager: Manager,
    done: watch::Sender<bool>,
}

/// The other end of a [`Registration`].
struct Registered(watch::Receiver<bool>);

impl Registration {
    fn new(manager: Manager) -> (Self, Registered) {
        let (done, wait) = watch::channel(false);
        (Self { manager, done }, Registered(wait))
    }
}

impl Registered {
    async fn done(mut self) -> Result<()> {
        match tokio::time::timeout(REGISTRATION, self.0.wait_for(|done| *done)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                Err(Error::of(code::AGENT_UNREACHABLE, "the agent of this process does not report"))
            }
        }
    }
}

#[async_trait]
impl ManagerApi for Registration {
    async fn report(&self, report: AgentReport) -> Result<ReportReply> {
        let whole = report.images.is_some();
        let reply = self.manager.report(report).await?;
        if whole {
            self.done.send_replace(true);
        }
        Ok(reply)
    }
}

/// The directory to use, private to its owner, and its guard when it is to vanish.
fn data_dir(asked: Option<PathBuf>) -> Result<(PathBuf, Option<tempfile::TempDir>)> {
    if let Some(dir) = asked {
        return private_dir(&dir).map(|path| (path, None));
    }
    let make = || {
        let dir = tempfile::Builder::new().prefix("bai-").tempdir()?;
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o700))?;
        Ok((dir.path().to_owned(), Some(dir)))
    };
    make().map_err(|cause| unusable(&std::env::temp_dir(), cause))
}

/// Finds the one agent of this process, once it has started: the manager, which starts first, has work for it at once when
/// there are sessions on their way.
#[derive(Debug, Default)]
struct LocalDialer(watch::Sender<Option<Arc<dyn AgentApi>>>);

#[async_trait]
impl AgentDialer for LocalDialer {
    async fn dial(&self, agent: &bai_core::port::store::Agent) -> Result<Arc<dyn AgentApi>> {
        let elsewhere = || {
            Error::of(code::AGENT_UNREACHABLE, "the agent is not in this process").with("agent", &agent.id)
        };
        if !agent.addr.is_empty() {
            return Err(elsewhere());
        }
        let mut started = self.0.subscribe();
        let here = started.wait_for(Option::is_some).await.map_err(|_| elsewhere())?;
        here.clone().ok_or_else(elsewhere)
    }
}
