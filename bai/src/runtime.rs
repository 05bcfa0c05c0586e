//! What runs the kernels: the one place that knows all back ends.

use std::sync::Arc;
use std::time::Duration;

use bai_agent_lib::backend::process::{self, ProcessBackend, ProcessOptions};
use bai_agent_lib::backend::simulated::{SimulatedBackend, SimulatedOptions};
use bai_agent_lib::{Agent, AgentBuilder, AgentOptions};
use bai_core::error::code;
use bai_core::port::{KernelBackend, ManagerApi};
use bai_core::{Error, Result};
use serde::{Deserialize, Serialize};

pub use process::Facility;

/// The agent that the doctor opens back ends for.
const DOCTOR: &str = "doctor";
/// Longest that the doctor waits for a back end.
const DOCTOR_PATIENCE: Duration = Duration::from_secs(10);

/// What this host offers for running kernels: the means to isolate them, then what each back end has when it is opened. `docker` is
/// the address of the engine, its default when absent.
pub async fn doctor(docker: Option<String>) -> Vec<Facility> {
    let cgroups = bai_agent_lib::cgroup::detect("bai");
    let mut found = process::doctor(cgroups.as_deref());
    found.push(back_end("process sandbox", "`--backend process` does not work", &Runtime::process()).await);
    if let Some(Err(error)) = cgroups.map(|cgroups| cgroups.remove(DOCTOR)) {
        tracing::debug!(%error, "an empty control group is left");
    }
    #[cfg(feature = "docker")]
    found.push(
        back_end("Docker engine", "`--backend docker` does not work", &Runtime::Docker { host: docker })
            .await,
    );
    #[cfg(not(feature = "docker"))]
    drop(docker);
    found
}

/// The images of a back end, or why there are none.
async fn back_end(name: &'static str, consequence: &'static str, runtime: &Runtime) -> Facility {
    let images = tokio::time::timeout(DOCTOR_PATIENCE, images_of(runtime)).await;
    let (ok, found) = match images {
        Ok(Ok(names)) if names.is_empty() => (false, "no image".to_owned()),
        Ok(Ok(names)) => (true, names.join(", ")),
        Ok(Err(error)) => (false, error.to_string()),
        Err(_) => (false, format!("no answer within {} seconds", DOCTOR_PATIENCE.as_secs())),
    };
    Facility { name, ok, found, consequence }
}

async fn images_of(runtime: &Runtime) -> Result<Vec<String>> {
    let failed = |error| Error::of(code::INTERNAL, "no temporary directory can be made").source(error);
    let scratch = tempfile::tempdir().map_err(failed)?;
    let mut options = AgentOptions::new(DOCTOR, scratch.path());
    options.runner = bai_krunner_bin::install(&scratch.path().join("bin")).map_err(failed)?;
    let images = Prepared::new(runtime, options).await?.backend.images().await?;
    Ok(images.into_iter().map(|image| image.name).collect())
}

/// What runs the kernels of a node. Options that are absent are left out when it is written: as the lowest layer of a
/// configuration they would stay under another kind, which does not know them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Runtime {
    /// A sandbox made of the host's own means, with the interpreters found on the host.
    Process {
        /// Directories to look for interpreters in, separated by colons; the usual ones when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
    },
    /// Docker containers of labelled images.
    #[cfg(feature = "docker")]
    Docker {
        /// Address of the engine such as `unix:///var/run/docker.sock`; the engine's default when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
    },
    /// Kernels that are only pretended, for tests and benchmarks.
    Simulated,
}

impl Default for Runtime {
    fn default() -> Self {
        Self::process()
    }
}

impl Runtime {
    /// The process sandbox, with the interpreters of the usual directories.
    pub fn process() -> Self {
        Self::Process { path: None }
    }
}

/// Name of a node among all that use the same engine. Several may have the id that is the default; none shares its files.
#[cfg(feature = "docker")]
fn owner(options: &AgentOptions) -> String {
    format!("{}:{}", options.id, options.data_dir.display())
}

/// Size of a simulated node: its kernels use nothing of the host.
const SIMULATED_CORES: u32 = 1024;
const SIMULATED_MEMORY: u64 = 4 << 40;

/// A node: its agent, and the back end to clean up with.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) agent: Arc<Agent>,
    pub(crate) backend: Arc<dyn KernelBackend>,
}

/// A node whose agent has yet to be started: what it takes from the host is found out without a manager.
#[derive(Debug)]
pub(crate) struct Prepared {
    builder: AgentBuilder,
    backend: Arc<dyn KernelBackend>,
}

impl Prepared {
    /// Opens the back end of `runtime`.
    pub(crate) async fn new(runtime: &Runtime, mut options: AgentOptions) -> Result<Self> {
        if *runtime == Runtime::Simulated {
            (options.cpu, options.mem) = (Some(SIMULATED_CORES), Some(SIMULATED_MEMORY));
            options.pin_cpus = false;
        }
        let scratch = options.data_dir.join("scratch");
        let (id, runner) = (options.id.clone(), options.runner.clone());
        #[cfg(feature = "docker")]
        let owner = owner(&options);
        let builder = Agent::builder(options);
        let (backend, builder): (Arc<dyn KernelBackend>, _) = match runtime {
            Runtime::Process { path } => {
                let mut process = ProcessOptions::new(id.as_str(), scratch, runner);
                if let Some(path) = path {
                    process.path.clone_from(path);
                }
                let backend = Arc::new(ProcessBackend::open(process).await?);
                (backend.clone(), builder.backend(backend))
            }
            #[cfg(feature = "docker")]
            Runtime::Docker { host } => {
                use bai_agent_lib::backend::docker::{DockerBackend, DockerOptions};
                let host = host.as_deref().unwrap_or("unix:///var/run/docker.sock");
                let backend = Arc::new(DockerBackend::connect(DockerOptions::new(host, owner)).await?);
                (backend.clone(), builder.backend(backend))
            }
            Runtime::Simulated => {
                let backend = SimulatedBackend::new(SimulatedOptions::default());
                (backend.clone(), builder.simulated(&backend))
            }
        };
        Ok(Self { builder, backend })
    }

    /// Compute plugins beside `cpu` and `mem`.
    #[cfg(feature = "cluster")]
    pub(crate) fn plugins(mut self, plugins: Vec<Box<dyn bai_agent_lib::plugin::ComputePlugin>>) -> Self {
        self.builder = self.builder.plugins(plugins);
        self
    }

    /// Starts the agent, which reports to `manager`.
    pub(crate) async fn start(self, manager: Arc<dyn ManagerApi>) -> Result<Node> {
        let agent = Arc::new(self.builder.manager(manager).start().await?);
        Ok(Node { agent, backend: self.backend })
    }
}

impl Node {
    /// Ends every kernel of this node at once.
    pub(crate) async fn end_all(&self) {
        for started in self.backend.list().await.unwrap_or_default() {
            let ended = self.backend.stop(started.kernel, Duration::ZERO).await;
            if let Err(error) = ended.and(self.backend.remove(started.kernel).await) {
                tracing::warn!(%error, kernel = %started.kernel.id, "cannot end the kernel");
            }
        }
    }
}
