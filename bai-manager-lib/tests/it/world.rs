//! A cluster in memory: stores that outlive a manager, and agents that do as they are told by the test.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bai_core::error::code;
use bai_core::execution::{ExecuteReply, ExecuteRequest, FileEntry, KernelStats, RunStatus, UploadFile};
use bai_core::image::Image;
use bai_core::memory::{MemoryConfig, MemoryCounter, MemoryEvents, MemoryLease, MemoryStore};
use bai_core::port::agent::{
    AgentReport, BatchOutcome, KernelRef, KernelReport, KernelSpec, KernelStage, ManagerApi, RunningKernel,
};
use bai_core::port::store::{Agent, SessionQuery};
use bai_core::port::{AgentApi, SessionStore};
use bai_core::session::KernelExit;
use bai_core::slots::{ResourceSlots, SlotType};
use bai_core::{
    AgentId, Error, ErrorKind, KernelId, Result, Secret, Session, SessionId, SessionStatus, SystemClock,
};
use bai_manager_lib::agent::AgentDialer;
use bai_manager_lib::identity::Bootstrap;
use bai_manager_lib::session::CreateSession;
use bai_manager_lib::{Backends, Manager, ManagerOptions, Scope};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

/// How an agent behaves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manners {
    /// `create_kernels` fails with this kind.
    pub(crate) refuses: Option<ErrorKind>,
    /// Kernels fail to start with this code.
    pub(crate) fails_with: Option<&'static str>,
    /// Kernels stay in `PREPARING`.
    pub(crate) never_starts: bool,
    /// Kernels survive being destroyed.
    pub(crate) ignores_destroy: bool,
    /// Commands never answer.
    pub(crate) hangs: bool,
    /// Commands do not reach it.
    pub(crate) away: bool,
    /// Startup commands do not end.
    pub(crate) endless_batch: bool,
    /// No reports are sent.
    pub(crate) silent: bool,
    /// Every other report is lost on the way.
    pub(crate) lossy: bool,
}

#[derive(Debug)]
struct Simulated {
    spec: KernelSpec,
    stage: KernelStage,
    batch: Option<BatchOutcome>,
    batch_starts: u32,
}

#[derive(Debug)]
pub(crate) struct FakeAgent {
    pub(crate) id: AgentId,
    pub(crate) manners: Mutex<Manners>,
    capacity: ResourceSlots,
    incarnation: AtomicU64,
    seq: AtomicU64,
    kernels: Mutex<HashMap<KernelId, Simulated>>,
    pub(crate) unknown: Mutex<Vec<KernelRef>>,
    /// What every kernel says of its use.
    pub(crate) stats: Mutex<KernelStats>,
    pub(crate) unused_ms: Mutex<Option<u64>>,
    pub(crate) resource_group: Mutex<String>,
    pub(crate) commands: AtomicU64,
    changed: Notify,
}

impl FakeAgent {
    fn new(id: &str, cpu: u64) -> Arc<Self> {
        Arc::new(Self {
            id: id.into(),
            manners: Mutex::default(),
            capacity: [("cpu", cpu), ("mem", 64 << 30)].into_iter().collect(),
            incarnation: AtomicU64::new(rand::random()),
            seq: AtomicU64::new(1),
            kernels: Mutex::default(),
            unknown: Mutex::default(),
            stats: Mutex::new([("mem".to_owned(), json!({"current": "1"}))].into_iter().collect()),
            unused_ms: Mutex::new(Some(0)),
            resource_group: Mutex::new("default".into()),
            commands: AtomicU64::new(0),
            changed: Notify::new(),
        })
    }

    pub(crate) fn behave(&self, manners: Manners) {
        *self.manners.lock() = manners;
        self.changed.notify_one();
    }

    pub(crate) fn kernel_count(&self) -> usize {
        self.kernels.lock().len()
    }

    pub(crate) fn batch_starts(&self) -> u32 {
        self.kernels.lock().values().map(|kernel| kernel.batch_starts).sum()
    }

    pub(crate) fn spec(&self, kernel: KernelId) -> Option<KernelSpec> {
        self.kernels.lock().get(&kernel).map(|kernel| kernel.spec.clone())
    }

    /// A kernel ends by itself.
    pub(crate) fn die(&self, kernel: KernelId, code: i32, oom: bool) {
        if let Some(known) = self.kernels.lock().get_mut(&kernel) {
            known.stage =
                KernelStage::Exited(KernelExit { code: Some(code), reason: "self-terminated".into(), oom });
        }
        self.changed.notify_one();
    }

    /// Another process takes its place, which knows nothing of the kernels.
    pub(crate) fn is_replaced(&self) {
        self.kernels.lock().clear();
        self.incarnation.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
    }

    /// Some running kernel ends by itself.
    pub(crate) fn kill_any(&self) {
        let mut kernels = self.kernels.lock();
        let running = kernels.values_mut().find(|kernel| matches!(kernel.stage, KernelStage::Running(_)));
        if let Some(kernel) = running {
            kernel.stage = KernelStage::Exited(KernelExit {
                code: Some(1),
                reason: "self-terminated".into(),
                oom: false,
            });
        }
        self.changed.notify_one();
    }

    /// A kernel vanishes without a word.
    pub(crate) fn vanish(&self, kernel: KernelId) {
        self.kernels.lock().remove(&kernel);
        self.changed.notify_one();
    }

    /// A kernel that nobody asked for.
    pub(crate) fn plant(&self, session: SessionId) -> KernelRef {
        let kernel = KernelRef { id: KernelId::random(), generation: 1 };
        let spec = KernelSpec { kernel, session, ..empty_spec() };
        let stage = KernelStage::Running(Box::default());
        self.kernels.lock().insert(kernel.id, Simulated { spec, stage, batch: None, batch_starts: 0 });
        self.changed.notify_one();
        kernel
    }

    pub(crate) fn report(&self) -> AgentReport {
        let kernels = self.kernels.lock();
        AgentReport {
            agent: self.id.clone(),
            incarnation: self.incarnation.load(Ordering::SeqCst),
            seq: self.seq.fetch_add(1, Ordering::SeqCst),
            addr: String::new(),
            public_host: "127.0.0.1".into(),
            region: "local".into(),
            resource_group: self.resource_group.lock().clone(),
            capacity: self.capacity.clone(),
            slot_types: [("cpu", SlotType::Count), ("mem", SlotType::Bytes)].into_iter().collect(),
            architecture: "x86_64".into(),
            version: "1".into(),
            compute_plugins: json!({}),
            live_stat: json!({}),
            isolation_gaps: Vec::new(),
            images: Some(vec![python(), other_image()]),
            kernels: kernels
                .values()
                .map(|kernel| KernelReport {
                    kernel: kernel.spec.kernel,
                    session: kernel.spec.session,
                    stage: kernel.stage.clone(),
                    batch: kernel.batch.clone(),
                    stats: Some(self.stats.lock().clone()),
                    unused_ms: *self.unused_ms.lock(),
                })
                .collect(),
            leaving: false,
        }
    }

    async fn run(self: Arc<Self>, managers: Managers) {
        loop {
            self.start_prepared();
            let manners = self.manners.lock().clone();
            let lost = manners.lossy && self.seq.load(Ordering::SeqCst).is_multiple_of(2);
            let report = self.report();
            if !manners.silent && !lost {
                let manager = managers.lock().clone();
                if let Some(manager) = manager
                    && let Ok(reply) = manager.report(report).await
                {
                    *self.unknown.lock() = reply.unknown;
                }
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    }

    fn start_prepared(&self) {
        let manners = self.manners.lock().clone();
        for kernel in self.kernels.lock().values_mut() {
            if kernel.stage == KernelStage::Preparing && !manners.never_starts {
                kernel.stage = match manners.fails_with {
                    Some(code) => KernelStage::Failed { code: code.into(), message: "no luck".into() },
                    None => KernelStage::Running(Box::new(RunningKernel {
                        container_id: format!("c-{}", kernel.spec.kernel.id),
                        ..RunningKernel::default()
                    })),
                };
            }
        }
    }

    async fn manners(&self) -> Manners {
        self.commands.fetch_add(1, Ordering::SeqCst);
        let manners = self.manners.lock().clone();
        if manners.hangs {
            std::future::pending::<()>().await;
        }
        manners
    }
}

fn empty_spec() -> KernelSpec {
    KernelSpec {
        kernel: KernelRef { id: KernelId::random(), generation: 1 },
        session: SessionId::random(),
        session_name: String::new(),
        session_type: "interactive".into(),
        image: "python:3.11".into(),
        image_labels: std::collections::BTreeMap::new(),
        role: "main".into(),
        hostname: "main1".into(),
        slots: ResourceSlots::new(),
        resource_opts: Map::new(),
        environ: std::collections::BTreeMap::new(),
        bootstrap_script: None,
        preopen_ports: Vec::new(),
        startup_command: None,
        batch_timeout: None,
        cluster: None,
    }
}

fn not_found() -> Error {
    Error::of(code::KERNEL_NOT_FOUND, "no such kernel")
}

#[async_trait]
impl AgentApi for FakeAgent {
    async fn create_kernels(&self, specs: Vec<KernelSpec>) -> Result<()> {
        let manners = self.manners().await;
        if manners.away {
            return Err(Error::of(code::AGENT_UNREACHABLE, "away"));
        }
        if let Some(kind) = manners.refuses {
            return Err(Error::new(kind, "refused"));
        }
        let mut kernels = self.kernels.lock();
        for spec in specs {
            let known = kernels.get(&spec.kernel.id).map(|kernel| kernel.spec.kernel.generation);
            if known.is_none_or(|generation| generation < spec.kernel.generation) {
                let fresh = Simulated { stage: KernelStage::Preparing, batch: None, batch_starts: 0, spec };
                kernels.insert(fresh.spec.kernel.id, fresh);
            }
        }
        self.changed.notify_one();
        Ok(())
    }

    async fn destroy_kernel(&self, kernel: KernelRef, reason: &str) -> Result<()> {
        let manners = self.manners().await;
        let mut kernels = self.kernels.lock();
        let known =
            kernels.get_mut(&kernel.id).filter(|known| known.spec.kernel == kernel).ok_or_else(not_found)?;
        if !manners.ignores_destroy && !matches!(known.stage, KernelStage::Exited(_)) {
            known.stage =
                KernelStage::Exited(KernelExit { code: Some(137), reason: reason.into(), oom: false });
        }
        self.changed.notify_one();
        Ok(())
    }

    async fn forget(&self, kernel: KernelRef) -> Result<()> {
        self.manners().await;
        let mut kernels = self.kernels.lock();
        match kernels.get(&kernel.id).map(|known| &known.stage) {
            Some(KernelStage::Exited(_) | KernelStage::Failed { .. }) => _ = kernels.remove(&kernel.id),
            Some(_) => return Err(Error::new(ErrorKind::Conflict, "still running")),
            None => {}
        }
        Ok(())
    }

    async fn start_batch(&self, kernel: KernelRef) -> Result<()> {
        let manners = self.manners().await;
        let mut kernels = self.kernels.lock();
        let known = kernels.get_mut(&kernel.id).ok_or_else(not_found)?;
        known.batch_starts += 1;
        if known.batch.is_none() && !manners.endless_batch {
            let ok = known.spec.startup_command.as_deref() == Some("true");
            let (exit_code, reason) = if ok { (0, "task-finished") } else { (3, "task-failed") };
            known.batch = Some(BatchOutcome { exit_code, reason: reason.into() });
        }
        self.changed.notify_one();
        Ok(())
    }

    async fn execute(&self, kernel: KernelRef, request: ExecuteRequest) -> Result<ExecuteReply> {
        self.manners().await;
        self.kernels.lock().get(&kernel.id).ok_or_else(not_found)?;
        Ok(ExecuteReply {
            run_id: request.run_id.unwrap_or_else(|| "r1".into()),
            status: RunStatus::Finished,
            exit_code: Some(0),
            options: None,
            console: Vec::new(),
        })
    }

    async fn interrupt(&self, _: KernelRef) -> Result<()> {
        Ok(())
    }

    async fn complete(&self, _: KernelRef, code: &str, _: &Map<String, Value>) -> Result<Vec<String>> {
        Ok(vec![format!("{code}()")])
    }

    async fn logs(&self, kernel: KernelRef) -> Result<Vec<u8>> {
        self.manners().await;
        let known = self.kernels.lock().contains_key(&kernel.id);
        if known { Ok(format!("log of {}", kernel.id).into_bytes()) } else { Err(not_found()) }
    }

    async fn upload(&self, _: KernelRef, _: Vec<UploadFile>) -> Result<()> {
        Ok(())
    }

    async fn download(&self, _: KernelRef, path: &str) -> Result<Vec<u8>> {
        Ok(path.as_bytes().to_vec())
    }

    async fn download_single(&self, _: KernelRef, path: &str) -> Result<Vec<u8>> {
        Ok(path.as_bytes().to_vec())
    }

    async fn list_files(&self, _: KernelRef, _: &str) -> Result<Vec<FileEntry>> {
        Ok(Vec::new())
    }
}

pub(crate) fn python() -> Image {
    image("python:3.11", &["python"])
}

fn other_image() -> Image {
    image("registry.example.com/lab/r:4.3", &["r"])
}

fn image(name: &str, aliases: &[&str]) -> Image {
    let labels = [
        ("ai.backend.resource.min.cpu", "1"),
        ("ai.backend.resource.min.mem", "64m"),
        ("ai.backend.service-ports", "jupyter:http:8080"),
    ];
    Image {
        name: name.into(),
        architecture: "x86_64".into(),
        digest: String::new(),
        size: 0,
        labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
    }
}

type Managers = Arc<Mutex<Option<Manager>>>;

/// Agents by id.
#[derive(Debug, Default)]
pub(crate) struct Dialer(Mutex<HashMap<AgentId, Arc<FakeAgent>>>);

#[async_trait]
impl AgentDialer for Dialer {
    async fn dial(&self, agent: &Agent) -> Result<Arc<dyn AgentApi>> {
        let known = self.0.lock().get(&agent.id).cloned();
        known
            .map(|agent| agent as Arc<dyn AgentApi>)
            .ok_or_else(|| Error::of(code::AGENT_UNREACHABLE, "no such agent"))
    }
}

/// The cluster.
pub(crate) struct World {
    pub(crate) store: MemoryStore,
    pub(crate) backends: Backends,
    pub(crate) agents: Vec<Arc<FakeAgent>>,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) options: ManagerOptions,
    pub(crate) scope: Scope,
    managers: Managers,
    tasks: tokio::task::JoinSet<()>,
}

impl World {
    /// A manager, and one agent for each number of cores, all known and alive.
    pub(crate) async fn new(cores: &[u64]) -> Self {
        Self::with_options(cores, quick()).await
    }

    pub(crate) async fn with_options(cores: &[u64], options: ManagerOptions) -> Self {
        let store = MemoryStore::new();
        Self::on(store.clone(), Arc::new(store), cores, options).await
    }

    /// As [`World::new`], with `sessions` in front of the store.
    pub(crate) async fn on(
        store: MemoryStore,
        sessions: Arc<dyn SessionStore>,
        cores: &[u64],
        options: ManagerOptions,
    ) -> Self {
        let shared = Arc::new(store.clone());
        let backends = Backends {
            sessions,
            identities: shared.clone(),
            agents: shared.clone(),
            images: shared.clone(),
            logs: shared,
            events: Arc::new(MemoryEvents::new()),
            config: Arc::new(MemoryConfig::new()),
            lease: Arc::new(MemoryLease::new()),
            counter: Arc::new(MemoryCounter::new()),
            clock: Arc::new(SystemClock),
            secret: [7; 32].into(),
        };
        let dialer = Arc::new(Dialer::default());
        let manager = Manager::start(backends.clone(), dialer.clone(), options.clone()).await.unwrap();
        let credential = manager.identities().bootstrap(admin()).await.unwrap();
        let managers: Managers = Arc::new(Mutex::new(Some(manager)));
        let mut world = Self {
            store,
            backends,
            agents: Vec::new(),
            dialer,
            options,
            scope: Scope::own(Arc::new(credential)),
            managers,
            tasks: tokio::task::JoinSet::new(),
        };
        for (i, cpu) in cores.iter().enumerate() {
            world.add_agent(&format!("i-{i}"), *cpu);
        }
        world.until("agents are known", |world| world.manager().agents().list().len() == cores.len()).await;
        world
    }

    pub(crate) fn add_agent(&mut self, id: &str, cpu: u64) {
        let agent = FakeAgent::new(id, cpu);
        self.dialer.0.lock().insert(agent.id.clone(), agent.clone());
        self.tasks.spawn(agent.clone().run(self.managers.clone()));
        self.agents.push(agent);
    }

    pub(crate) fn manager(&self) -> Manager {
        self.managers.lock().clone().unwrap()
    }

    /// The manager dies without a word.
    pub(crate) fn kill_manager(&self) {
        *self.managers.lock() = None;
    }

    /// Agents report to `manager` from now on.
    pub(crate) fn replace_manager(&self, manager: Manager) {
        *self.managers.lock() = Some(manager);
    }

    /// A new manager on the same stores.
    pub(crate) async fn revive_manager(&self) {
        // The lease of the dead one has ended, as it does by itself after its time.
        let mut backends = self.backends.clone();
        backends.lease = Arc::new(MemoryLease::new());
        let manager = Manager::start(backends, self.dialer.clone(), self.options.clone()).await.unwrap();
        *self.managers.lock() = Some(manager);
    }

    pub(crate) async fn create(&self, request: CreateSession) -> Result<Arc<Session>> {
        let create = self.manager().sessions().create(&self.scope, request).await;
        create.map(|outcome| outcome.session)
    }

    pub(crate) async fn store_has(&self, name: &str) -> bool {
        let query = SessionQuery { name: Some(name.into()), ..SessionQuery::default() };
        self.store.find(&query).await.unwrap().total > 0
    }

    pub(crate) async fn stored(&self, id: SessionId) -> Session {
        self.store.get(id).await.unwrap().expect("the session is stored")
    }

    /// Waits until the stored session has the status.
    pub(crate) async fn reaches(&self, id: SessionId, status: SessionStatus) -> Session {
        let mut seen = None;
        for _ in 0..1000 {
            let session = self.stored(id).await;
            if session.status == status {
                return session;
            }
            seen = Some(session);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{status} is not reached: {seen:#?}");
    }

    /// Waits until the stored session is as it should be.
    pub(crate) async fn until_stored(&self, id: SessionId, is_right: impl Fn(&Session) -> bool) {
        for _ in 0..1000 {
            if is_right(&self.stored(id).await) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never came true: {:#?}", self.stored(id).await);
    }

    pub(crate) async fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        for _ in 0..1000 {
            if condition(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never came true: {what}");
    }

    /// No agent holds more than it has; what sessions hold is what their living kernels asked for, and nothing else.
    pub(crate) async fn check_capacity(&self) -> HashMap<AgentId, ResourceSlots> {
        let all = self.store.find(&SessionQuery::default()).await.unwrap().items;
        let mut held = HashMap::<AgentId, ResourceSlots>::new();
        for kernel in all.iter().flat_map(|session| &session.kernels) {
            let holds = kernel.status.holds_capacity();
            let expected = if holds { kernel.requested.clone() } else { ResourceSlots::new() };
            assert_eq!(kernel.allocated, expected, "{} in {}", kernel.id, kernel.status);
            if let Some(agent) = &kernel.agent {
                held.entry(agent.clone()).or_default().add(&kernel.allocated);
            }
        }
        for agent in &self.agents {
            let here = held.get(&agent.id).cloned().unwrap_or_default();
            assert!(here.fits_in(&agent.capacity), "{} holds {here}", agent.id);
        }
        held
    }

    /// As [`World::check_capacity`], when nothing is going on: memory agrees with the store.
    pub(crate) async fn check_books(&self) {
        let mut held = self.check_capacity().await;
        for agent in &self.agents {
            let here = held.remove(&agent.id).unwrap_or_default();
            assert_eq!(self.manager().agents().occupied(&agent.id), here, "memory and store differ");
        }
    }
}

/// Short deadlines.
pub(crate) fn quick() -> ManagerOptions {
    let mut options = ManagerOptions::default();
    options.local_callbacks = true;
    options.agent_lost_after = Duration::from_millis(600);
    options.lost_agent_grace = Duration::from_millis(300);
    options.preparing_timeout = Duration::from_secs(1);
    options.restarting_timeout = Duration::from_secs(1);
    options.terminating_timeout = Duration::from_secs(1);
    options.agent_deadline = Duration::from_millis(500);
    options.destroy_wait = Duration::from_millis(500);
    options.resync_interval = Duration::from_secs(1);
    options.identity_cache = Duration::ZERO;
    options
}

pub(crate) fn admin() -> Bootstrap {
    Bootstrap {
        email: "admin@example.com".into(),
        password: Secret::new("a long password".into()),
        access_key: Some("AKIAIOSFODNN7EXAMPLE".into()),
        secret_key: Some(Secret::new("secret".into())),
    }
}

/// A request for one core.
pub(crate) fn small(name: &str) -> CreateSession {
    let mut request = CreateSession::new(name, "python");
    request.architecture = "x86_64".into();
    request.max_wait = Duration::from_secs(10);
    request
}

pub(crate) fn cores(name: &str, cpu: u64) -> CreateSession {
    let mut request = small(name);
    request.resources = json!({ "cpu": cpu, "mem": "256m" }).as_object().cloned();
    request.enqueue_only = true;
    request
}

pub(crate) fn batch(name: &str, command: &str) -> CreateSession {
    let mut request = small(name);
    request.session_type = bai_core::status::SessionType::Batch;
    request.startup_command = Some(command.into());
    request
}
