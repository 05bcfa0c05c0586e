//! An agent on simulated kernels.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bai_agent_lib::backend::simulated::{SimulatedBackend, SimulatedOptions};
use bai_agent_lib::{Agent, AgentOptions};
use bai_core::port::AgentApi;
use bai_testkit::agent_api::{AgentUnderTest, FakeManager};

/// Options for quick tests: many cores and much memory, which simulated kernels do not really use.
pub(crate) fn options(dir: &Path) -> AgentOptions {
    let mut options = AgentOptions::new("i-test", dir);
    options.cpu = Some(8);
    options.mem = Some(64 << 30);
    options.stats_interval = Duration::from_millis(20);
    options.report_interval = Duration::from_millis(200);
    options
}

/// Everything around one agent, which can be replaced.
pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) backend: Arc<SimulatedBackend>,
    pub(crate) manager: Arc<FakeManager>,
}

impl Node {
    pub(crate) fn new(options: SimulatedOptions) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            backend: SimulatedBackend::new(options),
            manager: Arc::default(),
        }
    }

    pub(crate) async fn agent(&self, options: AgentOptions) -> Arc<Agent> {
        let builder =
            Agent::builder(options).simulated(&self.backend).manager(Arc::clone(&self.manager) as _);
        Arc::new(builder.start().await.unwrap())
    }

    pub(crate) async fn start(&self) -> Arc<Agent> {
        self.agent(options(self.dir.path())).await
    }

    /// The agent as the suite wants it.
    pub(crate) fn under_test(&self, api: Arc<dyn AgentApi>) -> AgentUnderTest {
        let image = SimulatedOptions::default().images.remove(0);
        AgentUnderTest {
            api,
            manager: Arc::clone(&self.manager),
            image: image.name,
            image_labels: image.labels,
        }
    }
}
