//! A simulated agent: it does what agents promise, at times that the seed decides, and dies and comes back when told to.

mod command;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bai_core::port::agent::{BatchOutcome, KernelRef, KernelSpec, KernelStage, RunningKernel};
use bai_core::session::KernelExit;
use bai_core::slots::ResourceSlots;
use bai_core::{AgentId, KernelId, SessionId};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::ledger::{Ledger, describe};
use super::{Chance, Managers, Network, Trace};

/// How likely a kernel misbehaves, in cases of a thousand, and how agents do.
#[derive(Debug, Clone, Copy)]
pub struct NodeOptions {
    /// Kernels that cannot be started.
    pub failures: u32,
    /// Kernels that take minutes to start, or to end.
    pub stuck: u32,
    /// Kernels that end by themselves within a few minutes.
    pub deaths: u32,
    /// Pause between reports of which nothing is news.
    pub heartbeat: Duration,
}

/// How an agent dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Its process: kernels go on, and it finds them again.
    Process,
    /// Its host: kernels end, and it knows afterwards that they were there.
    Host,
    /// Its disk: nothing is left.
    Disk,
}

/// What the agents of a cluster share.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The story of the run.
    pub trace: Trace,
    /// The way to the managers.
    pub network: Arc<Network>,
    /// The managers.
    pub managers: Arc<Managers>,
    /// What the records say, and what is seen on all agents.
    pub ledger: Arc<Ledger>,
}

/// One agent with its host.
#[derive(Debug)]
pub struct Node {
    id: AgentId,
    group: String,
    capacity: ResourceSlots,
    chance: Chance,
    around: Surroundings,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    options: NodeOptions,
    up: bool,
    incarnation: u64,
    seq: u64,
    /// Counts the kernels: a task that acts for one of them acts for no other.
    births: u64,
    images_unsent: bool,
    kernels: BTreeMap<KernelId, Occupant>,
    unknown: BTreeMap<KernelRef, Instant>,
}

/// A kernel on its agent.
#[derive(Debug)]
struct Occupant {
    birth: u64,
    spec: KernelSpec,
    stage: KernelStage,
    /// Whether its record is on the disk: the agent writes it before it does anything.
    recorded: bool,
    stuck: bool,
    batch_begun: bool,
    batch: Option<BatchOutcome>,
}

impl Occupant {
    fn is_over(&self) -> bool {
        matches!(self.stage, KernelStage::Exited(_) | KernelStage::Failed { .. })
    }

    fn ends(&mut self, code: Option<i32>, reason: &str) {
        self.stage = KernelStage::Exited(KernelExit { code, reason: reason.to_owned(), oom: false });
    }
}

impl Node {
    /// An agent of the resource group `group`, which is up and knows nothing yet. It reports once [`Node::run`] runs.
    pub fn new(
        id: AgentId,
        group: &str,
        capacity: ResourceSlots,
        options: NodeOptions,
        chance: Chance,
        around: Surroundings,
    ) -> Arc<Self> {
        let state = State {
            options,
            up: true,
            incarnation: 1,
            seq: 0,
            births: 0,
            images_unsent: true,
            kernels: BTreeMap::new(),
            unknown: BTreeMap::new(),
        };
        let group = group.to_owned();
        Arc::new(Self {
            id,
            group,
            capacity,
            chance,
            around,
            state: Mutex::new(state),
            changed: Notify::new(),
        })
    }

    /// Identity.
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// The resource group that it serves.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Whether its process runs.
    pub fn is_up(&self) -> bool {
        self.state.lock().up
    }

    /// From now on its kernels behave like this.
    pub fn behave(&self, options: NodeOptions) {
        self.state.lock().options = options;
    }

    /// Dies at once.
    pub fn crash(&self, crash: Crash) {
        self.around.trace.say(format_args!("{} crashes: {crash:?}", self.id));
        let mut state = self.state.lock();
        state.up = false;
        state.unknown.clear();
        let ended = state.kernels.values().filter(|kernel| crash != Crash::Process || !kernel.recorded);
        ended.for_each(|kernel| self.around.ledger.runs(kernel.spec.kernel, false));
        match crash {
            Crash::Process => state.kernels.retain(|_, kernel| kernel.recorded),
            Crash::Host => {
                state.kernels.retain(|_, kernel| kernel.recorded);
                for kernel in state.kernels.values_mut().filter(|kernel| !kernel.is_over()) {
                    kernel.ends(None, "self-terminated");
                }
            }
            Crash::Disk => state.kernels.clear(),
        }
    }

    /// Another process takes over what is left.
    pub fn start(self: &Arc<Self>) {
        self.around.trace.say(format_args!("{} starts", self.id));
        let mut state = self.state.lock();
        state.up = true;
        state.incarnation += 1;
        state.seq = 0;
        state.images_unsent = true;
        self.changed.notify_one();
    }

    /// The starts of kernels that run here, or are on their way to or from it.
    pub fn living(&self) -> BTreeMap<KernelRef, (SessionId, KernelStage)> {
        let state = self.state.lock();
        let living = state.kernels.values().filter(|kernel| !kernel.is_over());
        living.map(|kernel| (kernel.spec.kernel, (kernel.spec.session, kernel.stage.clone()))).collect()
    }

    /// The starts of kernels that have ended here and are not forgotten.
    pub fn remains(&self) -> BTreeSet<KernelRef> {
        let state = self.state.lock();
        state.kernels.values().filter(|kernel| kernel.is_over()).map(|kernel| kernel.spec.kernel).collect()
    }

    /// The life of one kernel, from the request to whatever ends it.
    async fn live(self: Arc<Self>, id: KernelId, birth: u64, after: Duration) {
        sleep(after + self.chance.millis(1, 20)).await;
        if self.change(id, birth, |kernel| kernel.recorded = true).is_none() {
            return;
        }
        if self.chance.permille(100) {
            self.advance(id, birth, KernelStage::Pulling, 100, 8_000).await;
        }
        let options = self.state.lock().options;
        let stuck = self.chance.permille(options.stuck);
        _ = self.change(id, birth, |kernel| kernel.stuck = stuck);
        let (least, most) = if stuck { (20_000, 400_000) } else { (20, 1_500) };
        let next = if self.chance.permille(options.failures) {
            KernelStage::Failed { code: "BAI-K009".into(), message: "no luck".into() }
        } else {
            let container_id = format!("{}-{birth}", self.id);
            KernelStage::Running(Box::new(RunningKernel { container_id, ..RunningKernel::default() }))
        };
        self.advance(id, birth, next, least, most).await;
        if self.chance.permille(options.deaths) {
            sleep(self.chance.millis(10, 200_000)).await;
            if self.state.lock().options.deaths == 0 {
                return; // better times have come
            }
            let died = |kernel: &mut Occupant| {
                if matches!(kernel.stage, KernelStage::Running(_)) {
                    kernel.ends(Some(1), "self-terminated");
                }
            };
            _ = self.change(id, birth, died);
        }
    }

    /// Enters a stage after some milliseconds in which the agent is up, unless the kernel is being ended.
    async fn advance(&self, id: KernelId, birth: u64, stage: KernelStage, least: u64, most: u64) {
        sleep(self.chance.millis(least, most)).await;
        while !self.is_up() {
            sleep(Duration::from_secs(1)).await;
        }
        let starting =
            |kernel: &Occupant| matches!(kernel.stage, KernelStage::Preparing | KernelStage::Pulling);
        _ = self.change(id, birth, |kernel| {
            if starting(kernel) {
                kernel.stage = stage;
            }
        });
    }

    /// Changes a kernel if it is still the same; `None` when it is not.
    fn change(&self, id: KernelId, birth: u64, change: impl FnOnce(&mut Occupant)) -> Option<()> {
        let mut state = self.state.lock();
        let kernel = state.kernels.get_mut(&id).filter(|kernel| kernel.birth == birth)?;
        let before = kernel.stage.clone();
        change(kernel);
        if kernel.stage != before {
            self.around.ledger.runs(kernel.spec.kernel, matches!(kernel.stage, KernelStage::Running(_)));
            self.around.trace.say(format_args!(
                "{} {} {}",
                self.id,
                describe(kernel.spec.kernel),
                name(&kernel.stage)
            ));
        }
        drop(state);
        self.changed.notify_one();
        Some(())
    }
}

fn name(stage: &KernelStage) -> &'static str {
    match stage {
        KernelStage::Preparing => "prepares",
        KernelStage::Pulling => "pulls",
        KernelStage::Running(_) => "runs",
        KernelStage::Terminating => "is being ended",
        KernelStage::Exited(_) => "has ended",
        KernelStage::Failed { .. } => "has failed",
    }
}
