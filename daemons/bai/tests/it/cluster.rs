//! A manager and an agent as two processes, over PostgreSQL, Redis and etcd of their own corners.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use bai_client::Client;
use rand::Rng;
use tempfile::TempDir;

use crate::backend::Backend;
use crate::host::Node;
use crate::patience::until;
use crate::program::Program;
use crate::serve::{client, directory};

/// A program with the file it is configured by and the address that tells whether it serves.
struct Daemon {
    name: &'static str,
    config: PathBuf,
    health: String,
    program: Option<Program>,
}

/// The servers that the state is in, and what of them is ours.
struct Services {
    postgres: String,
    redis: String,
    etcd: String,
    /// Schema, prefix of keys, and part of the agent's name.
    corner: String,
}

/// A cluster of one manager and one agent. The processes come and go, the state stays.
pub(crate) struct Cluster {
    manager: Daemon,
    agent: Daemon,
    pub(crate) node: Node,
    root: TempDir,
    /// Cleared when all else has ended.
    _services: Services,
}

impl Cluster {
    /// Starts both. `None` where a service is missing and may be.
    pub(crate) async fn start(backend: Backend) -> Option<Self> {
        let services = Services::find()?;
        if !backend.is_available() {
            return None;
        }
        let root = directory();
        let (reports, id) = (free_address(), format!("i-{}", services.corner));
        let manager = Daemon::new(
            "bai-manager",
            root.path(),
            &services.manager(&root.path().join("manager"), &reports),
        );
        let agent =
            Daemon::new("bai-agent", root.path(), &agent(backend, &id, &root.path().join("agent"), &reports));
        let node = Node::new(backend, &id, root.path(), root.path().join("agent"));
        let mut cluster = Self { manager, agent, node, root, _services: services };
        cluster.manager.start(cluster.root.path()).await;
        cluster.agent.start(cluster.root.path()).await;
        cluster.takes_sessions().await;
        Some(cluster)
    }

    pub(crate) fn client(&self) -> Client {
        client(&self.root.path().join("manager"))
    }

    pub(crate) async fn kill_manager(&mut self) {
        self.manager.program.take().unwrap().kill().await;
    }

    pub(crate) async fn kill_agent(&mut self) {
        self.agent.program.take().unwrap().kill().await;
    }

    pub(crate) async fn start_manager(&mut self) {
        self.manager.start(self.root.path()).await;
    }

    pub(crate) async fn start_agent(&mut self) {
        self.agent.start(self.root.path()).await;
    }

    /// SIGTERM to both; kernels go on.
    pub(crate) async fn stop(&mut self) {
        self.agent.program.take().unwrap().stop().await;
        self.manager.program.take().unwrap().stop().await;
    }

    /// Waits until the manager knows the agent and its images.
    pub(crate) async fn takes_sessions(&self) {
        let client = self.client();
        until("the agent is to be known", async || {
            let agents = client.agents().await.map_err(|error| error.to_string())?;
            let images = client.images().await.map_err(|error| error.to_string())?;
            let alive = agents.iter().any(|agent| agent.status == "ALIVE");
            if alive && !images.is_empty() { Ok(()) } else { Err(format!("{agents:?}")) }
        })
        .await;
    }
}

impl Daemon {
    fn new(name: &'static str, root: &Path, config: &str) -> Self {
        let path = root.join(format!("{name}.toml"));
        std::fs::write(&path, config).unwrap();
        Self { name, config: path, health: free_address(), program: None }
    }

    async fn start(&mut self, root: &Path) {
        let args = [
            OsStr::new("--config"),
            self.config.as_os_str(),
            OsStr::new("--health"),
            OsStr::new(&self.health),
        ];
        let mut program = Program::start(self.name, root, &args);
        program.ready(&self.health).await;
        self.program = Some(program);
    }
}

impl Services {
    fn find() -> Option<Self> {
        let services = Self {
            postgres: bai_testkit::service_url("BAI_TEST_POSTGRES_URL")?,
            redis: bai_testkit::service_url("BAI_TEST_REDIS_URL")?,
            etcd: bai_testkit::service_url("BAI_TEST_ETCD_URL")?,
            corner: format!("it{:016x}", rand::rng().random::<u64>()),
        };
        services.sql(&format!("CREATE SCHEMA {}", services.corner));
        Some(services)
    }

    fn manager(&self, data: &Path, reports: &str) -> String {
        let Self { postgres, redis, etcd, corner } = self;
        let separator = if postgres.contains('?') { '&' } else { '?' };
        let mut text =
            format!("data = '{}'\nlisten = '127.0.0.1:0'\nagent_listen = '{reports}'\n", data.display());
        writeln!(text, "agent_secret = '{corner}'\nprefix = '{corner}/'").unwrap();
        writeln!(text, "postgres = '{postgres}{separator}options[search_path]={corner}'").unwrap();
        writeln!(text, "redis = '{redis}'\netcd = ['{etcd}']").unwrap();
        text
    }

    fn sql(&self, statement: &str) {
        let done = Command::new("psql").args([&self.postgres, "-qc", statement]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

fn agent(backend: Backend, id: &str, data: &Path, manager: &str) -> String {
    let secret = id.trim_start_matches("i-");
    let mut text = format!("id = '{id}'\ndata = '{}'\nlisten = '127.0.0.1:0'\n", data.display());
    writeln!(text, "manager = '{manager}'\nsecret = '{secret}'\nresource.cpu_overcommit = 10").unwrap();
    writeln!(text, "runtime.kind = '{}'", backend.name()).unwrap();
    if backend == Backend::Docker {
        writeln!(text, "runtime.host = '{}'", std::env::var("DOCKER_HOST").unwrap()).unwrap();
    }
    text
}

impl Drop for Services {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return; // to be looked at
        }
        self.sql(&format!("DROP SCHEMA {} CASCADE", self.corner));
        let prefix = format!("{}/", self.corner);
        let etcd = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.etcd, "del", "--prefix", &prefix])
            .output();
        assert!(etcd.unwrap().status.success());
        let script = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end";
        let redis = Command::new("redis-cli")
            .args(["-u", &self.redis, "EVAL", script, "0", &format!("*{prefix}*")])
            .output();
        assert!(redis.unwrap().status.success());
    }
}

/// A free address below the ports that the kernel hands to outgoing connections, so that it stays free.
fn free_address() -> String {
    let mut ports = std::iter::repeat_with(|| rand::rng().random_range(20_000..30_000_u16));
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    format!("127.0.0.1:{}", free.unwrap())
}
