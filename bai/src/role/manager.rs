//! The manager of a cluster: PostgreSQL, Redis and etcd behind it, agents over HTTP/2.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bai_coord::{Etcd, EtcdOptions, Redis, RedisOptions};
use bai_core::error::code;
use bai_core::port::AgentApi;
use bai_core::{Error, Result, Secret, SystemClock};
use bai_manager_lib::agent::AgentDialer;
use bai_manager_lib::gateway::{self, GatewayOptions};
use bai_manager_lib::identity::Bootstrap;
use bai_manager_lib::{Backends, Manager, ManagerOptions};
use bai_rpc::RemoteAgent;
use bai_store::{Options, Store};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cluster::write_environment;
use crate::secrets::{Secrets, private_dir};

/// Configuration of a manager.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ManagerConfig {
    /// Address of the API for clients. Default `127.0.0.1:8081`.
    pub listen: SocketAddr,
    /// Address that agents report to. Default `127.0.0.1:8082`.
    pub agent_listen: SocketAddr,
    /// Directory for `secrets.json` (generated when absent; the same on all managers) and `env.sh`. Default `.`.
    pub data: PathBuf,
    /// URL of PostgreSQL.
    pub postgres: Secret,
    /// URL of Redis.
    pub redis: Secret,
    /// URLs of the etcd members.
    pub etcd: Vec<String>,
    /// Prefix of all keys in Redis and etcd. Default `bai/`.
    pub prefix: String,
    /// Secret shared with the agents.
    pub agent_secret: Secret,
    /// Whether callbacks of sessions may go to loopback and link-local addresses. Default false.
    pub local_callbacks: bool,
    /// Slots by importance for the choice of an agent; the name of a device family stands for all its slots. Default `cuda`,
    /// `rocm`, `tpu`, `cpu`, `mem`.
    pub slot_priority: Vec<String>,
}

impl Default for ManagerConfig {
    fn default() -> Self {
        let ManagerOptions { local_callbacks, slot_priority, .. } = ManagerOptions::default();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            agent_listen: SocketAddr::from(([127, 0, 0, 1], 8082)),
            data: ".".into(),
            postgres: String::new().into(),
            redis: String::new().into(),
            etcd: Vec::new(),
            prefix: "bai/".into(),
            agent_secret: String::new().into(),
            local_callbacks,
            slot_priority,
        }
    }
}

/// A running manager.
#[derive(Debug)]
pub struct ManagerRole {
    manager: Manager,
    clients: TcpListener,
    agents: TcpListener,
    agent_secret: Secret,
}

impl ManagerRole {
    /// Connects to the back ends, makes the first superadmin, writes `env.sh`, and binds the listeners.
    ///
    /// # Errors
    /// `Invalid` when the configuration lacks something, `Unavailable` when a back end cannot be reached.
    pub async fn start(config: ManagerConfig) -> Result<Self> {
        required("agent_secret", config.agent_secret.reveal())?;
        let data = private_dir(&config.data)?;
        let secrets = Secrets::load_or_generate(&data)?;
        let clients = super::bind(config.listen).await?;
        let agents = super::bind(config.agent_listen).await?;
        let backends = connect(&config, &secrets).await?;
        let dialer = Arc::new(RemoteDialer(config.agent_secret.clone()));
        let mut options = ManagerOptions::default();
        options.local_callbacks = config.local_callbacks;
        options.slot_priority = config.slot_priority;
        let manager = Manager::start(backends, dialer, options).await?;
        let admin = Bootstrap {
            email: "admin@bai.local".into(),
            password: secrets.admin_password,
            access_key: None,
            secret_key: None,
        };
        let keypair = manager.identities().bootstrap(admin).await?.keypair;
        let endpoint = format!("http://{}", super::address(&clients)?);
        write_environment(&data, &endpoint, keypair.access_key.as_str(), keypair.secret_key.reveal())?;
        Ok(Self { manager, clients, agents, agent_secret: config.agent_secret })
    }

    /// Serves clients and agents until `shutdown`, then drains.
    ///
    /// # Errors
    /// `Unavailable` when a listener fails.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<()> {
        let reports = bai_rpc::manager_router(Arc::new(self.manager.clone()), self.agent_secret)?;
        let agents = bai_rpc::serve(reports, self.agents, shutdown.clone());
        let clients = gateway::serve(self.manager.clone(), self.clients, GatewayOptions::default(), shutdown);
        let outcome = tokio::try_join!(agents, clients).map(|((), ())| ());
        self.manager.shutdown().await;
        outcome
    }
}

async fn connect(config: &ManagerConfig, secrets: &Secrets) -> Result<Backends> {
    required("postgres", config.postgres.reveal())?;
    required("redis", config.redis.reveal())?;
    let store = Arc::new(
        Store::connect_postgres(config.postgres.reveal(), Options::new(secrets.store_key()?)).await?,
    );
    let mut options = RedisOptions::default();
    options.prefix.clone_from(&config.prefix);
    let redis = Arc::new(Redis::connect(config.redis.reveal(), options).await?);
    let mut options = EtcdOptions::default();
    options.prefix.clone_from(&config.prefix);
    let etcd = Arc::new(Etcd::connect(&config.etcd, options).await?);
    Ok(Backends {
        sessions: store.clone(),
        identities: store.clone(),
        agents: store.clone(),
        images: store.clone(),
        logs: store,
        events: redis.clone(),
        counter: redis,
        config: etcd.clone(),
        lease: etcd,
        clock: Arc::new(SystemClock),
        secret: secrets.store_key()?.into(),
    })
}

fn required(key: &'static str, value: &str) -> Result<()> {
    if value.is_empty() {
        return Err(Error::of(code::CONFIG_INVALID, "the configuration lacks a value").with("key", key));
    }
    Ok(())
}

/// Reaches agents at the address they report.
#[derive(Debug)]
struct RemoteDialer(Secret);

#[async_trait]
impl AgentDialer for RemoteDialer {
    async fn dial(&self, agent: &bai_core::port::store::Agent) -> Result<Arc<dyn AgentApi>> {
        Ok(Arc::new(RemoteAgent::connect(&agent.addr, &self.0)?))
    }
}
