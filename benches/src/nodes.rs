//! Simulated nodes in the manager's own process: kernels run as soon as they are asked for, and a report says so at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bai_core::error::code;
use bai_core::execution::{ExecuteReply, ExecuteRequest, FileEntry, UploadFile};
use bai_core::image::Image;
use bai_core::port::agent::{AgentReport, KernelRef, KernelReport, KernelSpec, KernelStage, RunningKernel};
use bai_core::port::store::Agent;
use bai_core::port::{AgentApi, ManagerApi};
use bai_core::session::KernelExit;
use bai_core::slots::{ResourceSlots, SlotType};
use bai_core::{AgentId, Error, ErrorKind, KernelId, Result};
use bai_manager_lib::Manager;
use bai_manager_lib::agent::AgentDialer;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

/// Pause between reports of which nothing is news.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// All nodes by id.
#[derive(Debug, Default)]
pub struct Nodes(HashMap<AgentId, Arc<Node>>);

/// One node.
#[derive(Debug)]
struct Node {
    id: AgentId,
    capacity: ResourceSlots,
    seq: AtomicU64,
    kernels: Mutex<HashMap<KernelId, KernelReport>>,
    changed: Notify,
}

impl Nodes {
    /// So many nodes of so many cores.
    pub fn new(nodes: usize, cores: u64) -> Arc<Self> {
        let node = |number| {
            let node = Node {
                id: AgentId::new(format!("i-{number:05}")),
                capacity: [("cpu", cores), ("mem", cores << 34)].into_iter().collect(),
                seq: AtomicU64::new(0),
                kernels: Mutex::default(),
                changed: Notify::new(),
            };
            (node.id.clone(), Arc::new(node))
        };
        Arc::new(Self((0..nodes).map(node).collect()))
    }

    /// Introduces all nodes to the manager, and has them report whenever something has changed, until the set is dropped.
    ///
    /// # Errors
    /// Those of the manager.
    pub async fn join(&self, manager: &Manager) -> Result<tokio::task::JoinSet<()>> {
        let mut tasks = tokio::task::JoinSet::new();
        for node in self.0.values() {
            manager.report(node.report(true)).await?;
            tasks.spawn(node.clone().run(manager.clone()));
        }
        Ok(tasks)
    }
}

#[async_trait]
impl AgentDialer for Nodes {
    async fn dial(&self, agent: &Agent) -> Result<Arc<dyn AgentApi>> {
        let node = self.0.get(&agent.id).cloned();
        node.map(|node| node as Arc<dyn AgentApi>)
            .ok_or_else(|| Error::of(code::AGENT_UNREACHABLE, "no such node"))
    }
}

impl Node {
    async fn run(self: Arc<Self>, manager: Manager) {
        loop {
            // Without a manager there is nobody to tell; the next report tells the same.
            _ = tokio::time::timeout(HEARTBEAT, self.changed.notified()).await;
            _ = manager.report(self.report(false)).await;
        }
    }

    fn report(&self, first: bool) -> AgentReport {
        AgentReport {
            agent: self.id.clone(),
            incarnation: 1,
            seq: self.seq.fetch_add(1, Ordering::Relaxed) + 1,
            addr: String::new(),
            public_host: "127.0.0.1".into(),
            region: "local".into(),
            resource_group: "default".into(),
            capacity: self.capacity.clone(),
            slot_types: [("cpu", SlotType::Count), ("mem", SlotType::Bytes)].into_iter().collect(),
            architecture: "x86_64".into(),
            version: "1".into(),
            compute_plugins: json!({}),
            live_stat: json!({}),
            isolation_gaps: Vec::new(),
            images: first.then(|| vec![image()]),
            kernels: self.kernels.lock().values().cloned().collect(),
            leaving: false,
        }
    }

    fn end(&self, kernel: KernelRef, reason: &str) {
        if let Some(known) = self.kernels.lock().get_mut(&kernel.id) {
            known.stage =
                KernelStage::Exited(KernelExit { code: Some(0), reason: reason.to_owned(), oom: false });
        }
        self.changed.notify_one();
    }
}

fn image() -> Image {
    Image {
        name: "python:3.11".into(),
        architecture: "x86_64".into(),
        digest: String::new(),
        size: 0,
        labels: [("ai.backend.resource.min.mem".to_owned(), "64m".to_owned())].into(),
        aliases: vec!["python".into()],
    }
}

fn unsupported<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "simulated kernels run no code"))
}

#[async_trait]
impl AgentApi for Node {
    async fn create_kernels(&self, specs: Vec<KernelSpec>) -> Result<()> {
        let running = |spec: KernelSpec| {
            let stage = KernelStage::Running(Box::new(RunningKernel {
                container_id: spec.kernel.id.to_string(),
                ..RunningKernel::default()
            }));
            let (kernel, session) = (spec.kernel, spec.session);
            (kernel.id, KernelReport { kernel, session, stage, batch: None, stats: None, unused_ms: None })
        };
        self.kernels.lock().extend(specs.into_iter().map(running));
        self.changed.notify_one();
        Ok(())
    }

    async fn destroy_kernel(&self, kernel: KernelRef, reason: &str) -> Result<()> {
        self.end(kernel, reason);
        Ok(())
    }

    async fn forget(&self, kernel: KernelRef) -> Result<()> {
        self.kernels.lock().remove(&kernel.id);
        Ok(())
    }

    async fn start_batch(&self, _: KernelRef) -> Result<()> {
        unsupported()
    }

    async fn execute(&self, _: KernelRef, _: ExecuteRequest) -> Result<ExecuteReply> {
        unsupported()
    }

    async fn interrupt(&self, _: KernelRef) -> Result<()> {
        unsupported()
    }

    async fn complete(&self, _: KernelRef, _: &str, _: &Map<String, Value>) -> Result<Vec<String>> {
        unsupported()
    }

    async fn logs(&self, _: KernelRef) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    async fn upload(&self, _: KernelRef, _: Vec<UploadFile>) -> Result<()> {
        unsupported()
    }

    async fn download(&self, _: KernelRef, _: &str) -> Result<Vec<u8>> {
        unsupported()
    }

    async fn download_single(&self, _: KernelRef, _: &str) -> Result<Vec<u8>> {
        unsupported()
    }

    async fn list_files(&self, _: KernelRef, _: &str) -> Result<Vec<FileEntry>> {
        unsupported()
    }
}
