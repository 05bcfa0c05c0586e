//! An engine with a back end, and kernels on it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bai_agent_lib::backend::docker::{DockerBackend, DockerOptions};
use bai_agent_lib::backend::process::{RUNNER_CONFIG, RUNNER_SOCKET};
use bai_core::id::{KernelId, SessionId};
use bai_core::port::KernelBackend;
use bai_core::port::agent::KernelRef;
use bai_core::port::backend::{Limits, RunnerEndpoint, StartSpec, Started};
use bai_kernel_lib::config::{RunnerConfig, RuntimeType};
use bai_kernel_lib::sandbox::{CONTROL_DIR, NamespaceIds};
use bollard::query_parameters::{ListContainersOptions, ListNetworksOptions, RemoveContainerOptions};
use bollard::{API_DEFAULT_VERSION, Docker};
use tempfile::TempDir;

use super::client::Client;

pub(super) const TOKEN: &str = "a token only the agent knows";

pub(super) const PYTHON: &str = "local/python:3.11-debian12";
pub(super) const BUSYBOX: &str = "local/busybox:1.35";
pub(super) const SCRATCH: &str = "local/scratch:1";

/// Memory limit of test kernels in bytes.
pub(super) const MEMORY: u64 = 128 << 20;

/// Process limit of test kernels.
pub(super) const PIDS: u32 = 64;

/// An agent of its own on the engine. What it started is removed when it is dropped.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) dir: PathBuf,
    pub(super) agent: String,
    pub(super) engine: String,
    _guard: Option<TempDir>,
}

impl Host {
    /// `None` when there is no engine to test with.
    pub(super) fn new() -> Option<Self> {
        engine().map(Self::on)
    }

    /// One on another engine than that of the tests.
    pub(super) fn on(engine: String) -> Self {
        let guard = tempfile::Builder::new().prefix("bai-").tempdir().unwrap();
        let agent = format!("test-{}", KernelId::random());
        Self { dir: guard.path().to_owned(), agent, engine, _guard: Some(guard) }
    }

    /// The same agent again, after a crash.
    pub(super) fn again(dir: &Path, agent: &str) -> Option<Self> {
        Some(Self { dir: dir.to_owned(), agent: agent.to_owned(), engine: engine()?, _guard: None })
    }

    pub(super) fn options(&self) -> DockerOptions {
        DockerOptions::new(&*self.engine, &*self.agent)
    }

    pub(super) async fn backend(&self) -> DockerBackend {
        DockerBackend::connect(self.options()).await.unwrap()
    }

    /// What an agent prepares for a kernel of the image.
    pub(super) fn spec(&self, image: &str) -> StartSpec {
        let kernel = KernelRef { id: KernelId::random(), generation: 1 };
        let scratch = self.dir.join("scratch").join(kernel.id.to_string());
        let [work, config, control] = ["work", "config", "control"].map(|name| scratch.join(name));
        for dir in [&work, &config, &control] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::set_permissions(&control, fs::Permissions::from_mode(0o700)).unwrap();
        chown(&work, Some(1000), Some(1000)).unwrap();
        let runtime = if image == PYTHON { RuntimeType::Python } else { RuntimeType::App };
        let mut runner_config =
            RunnerConfig::new(Path::new(CONTROL_DIR).join(RUNNER_SOCKET), TOKEN, runtime.clone());
        (runner_config.uid, runner_config.gid) = (Some(1000), Some(1000));
        runner_config.grace_ms = 1000;
        fs::write(control.join(RUNNER_CONFIG), serde_json::to_vec(&runner_config).unwrap()).unwrap();
        StartSpec {
            kernel,
            session: SessionId::random(),
            agent: self.agent.clone(),
            image: image.into(),
            hostname: "main1".into(),
            runner: bai_krunner_bin::install(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap(),
            work_dir: work,
            config_dir: config,
            control_dir: control,
            limits: Limits { memory: Some(MEMORY), pids: Some(PIDS), ..Limits::default() },
            image_labels: [("ai.backend.runtime-type".to_owned(), runtime.as_str().to_owned())].into(),
            ports: Vec::new(),
            uid_gid: (1000, 1000),
            cluster: None,
        }
    }

    /// The names of all containers that carry this agent's label, asked of the engine directly.
    pub(super) async fn containers(&self) -> Vec<String> {
        let listed = raw(&self.engine).list_containers(Some(ours(&self.agent))).await.unwrap();
        listed.into_iter().map(|container| container.names.unwrap_or_default().concat()).collect()
    }
}

fn engine() -> Option<String> {
    bai_testkit::service_url("BAI_TEST_DOCKER_HOST")
}

/// A client of the engine beside the back end.
pub(super) fn raw(engine: &str) -> Docker {
    Docker::connect_with_unix(engine, 60, API_DEFAULT_VERSION).unwrap()
}

fn ours(agent: &str) -> ListContainersOptions {
    let filters = HashMap::from([("label".to_owned(), label(agent))]);
    ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() }
}

fn label(agent: &str) -> Vec<String> {
    vec![format!("ai.backend.owner={agent}")]
}

impl Drop for Host {
    /// Removes what a failed test left.
    fn drop(&mut self) {
        let (engine, agent) = (self.engine.clone(), self.agent.clone());
        let cleanup = async move {
            let docker = raw(&engine).negotiate_version().await?;
            for container in docker.list_containers(Some(ours(&agent))).await? {
                let force =
                    RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
                docker.remove_container(&container.id.unwrap_or_default(), Some(force)).await?;
            }
            let filters = Some(HashMap::from([("label".to_owned(), label(&agent))]));
            for network in docker.list_networks(Some(ListNetworksOptions { filters })).await? {
                docker.remove_network(&network.id.unwrap_or_default()).await?;
            }
            Ok::<(), bollard::errors::Error>(())
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let cleaned = std::thread::spawn(move || runtime.block_on(cleanup)).join();
        assert!(std::thread::panicking() || matches!(cleaned, Ok(Ok(()))), "{cleaned:?}");
    }
}

/// A running kernel and a connection to its runner.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) spec: StartSpec,
    pub(super) started: Started,
    pub(super) client: Client,
}

impl Kernel {
    pub(super) async fn start(host: &Host, backend: &DockerBackend, image: &str) -> Self {
        Self::of(host.spec(image), backend).await
    }

    pub(super) async fn of(spec: StartSpec, backend: &DockerBackend) -> Self {
        let started = backend.start(&spec).await.unwrap();
        assert_eq!(started.exit, None);
        let client = connect(&started);
        Self { spec, started, client }
    }

    pub(super) fn reference(&self) -> KernelRef {
        self.spec.kernel
    }

    pub(super) async fn end(self, backend: &DockerBackend) {
        backend.stop(self.reference(), Duration::from_secs(5)).await.unwrap();
        backend.remove(self.reference()).await.unwrap();
    }

    /// Makes sure, by looking from inside, that hostile code can harm this kernel only.
    pub(super) fn prove(&mut self) -> Proof {
        let seen = self.client.output(
            "import os, re, json\n\
             def ns(kind): return int(re.search(r'\\d+', os.readlink('/proc/self/ns/' + kind)).group())\n\
             def limit(*paths):\n\
             \x20   for path in paths:\n\
             \x20       try: return int(open('/sys/fs/cgroup/' + path).read())\n\
             \x20       except (OSError, ValueError): pass\n\
             \x20   return 1 << 62\n\
             print(json.dumps({'pid': ns('pid'), 'mnt': ns('mnt'), 'uid': os.getuid(),\n\
             \x20   'pids': limit('pids/pids.max', 'pids.max'),\n\
             \x20   'memory': limit('memory/memory.limit_in_bytes', 'memory.max')}))",
        );
        let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
        let number = |key: &str| seen[key].as_i64().unwrap();
        let ours = NamespaceIds::of(0).unwrap();
        assert_ne!(number("pid"), i64::try_from(ours.pid).unwrap(), "same pid namespace");
        assert_ne!(number("mnt"), i64::try_from(ours.mnt).unwrap(), "same mount namespace");
        assert_eq!(number("uid"), 1000);
        assert!(number("pids") <= i64::from(PIDS), "{seen}");
        assert!(number("memory") <= i64::try_from(MEMORY).unwrap(), "{seen}");
        Proof(())
    }
}

/// A kernel was seen from inside to be isolated and limited: only with this may hostile code be sent to it.
#[derive(Debug)]
pub(super) struct Proof(());

pub(super) fn connect(started: &Started) -> Client {
    let RunnerEndpoint::Unix(socket) = &started.endpoint else { panic!("{started:?}") };
    Client::connect(socket, TOKEN)
}
