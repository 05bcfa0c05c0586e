//! Who holds which devices, whatever happens to kernels and agents.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bai_core::error::code;
use bai_core::id::KernelId;
use bai_core::port::AgentApi;
use bai_core::port::agent::{KernelRef, KernelSpec};
use bai_core::session::KernelExit;
use bai_core::slots::{Amount, SlotName};
use bai_scheduler::device::{DeviceId, Holding};
use bai_testkit::agent_api::FakeManager;
use proptest::prelude::*;

use super::*;
use crate::backend::simulated::SimulatedOptions;
use crate::plugin::mock::{MockConfig, MockPlugin, MockSettings};
use crate::state::{KernelRecord, MemoryState, Phase};

const GPUS: &str = r#"
slot_name = "cuda"
device_plugin_name = "CUDADevice"
devices = [
    { mother_uuid = "gpu-a", model_name = "GPU", numa_node = 0, subproc_count = 8, memory_size = "2g" },
    { mother_uuid = "gpu-b", model_name = "GPU", numa_node = 1, subproc_count = 8, memory_size = "2g" },
    { mother_uuid = "gpu-c", model_name = "GPU", numa_node = 0, subproc_count = 8, memory_size = "2g" },
    { mother_uuid = "gpu-d", model_name = "GPU", numa_node = 1, subproc_count = 8, memory_size = "2g" },
]
"#;

/// Records that can be kept from being written.
#[derive(Debug)]
struct Store {
    records: MemoryState,
    broken: AtomicBool,
}

impl StateStore for Store {
    fn load(&self) -> Result<Vec<KernelRecord>> {
        self.records.load()
    }

    fn save(&self, record: &KernelRecord) -> Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(Error::of(code::BACKEND_FAILED, "the disk is full"));
        }
        self.records.save(record)
    }

    fn remove(&self, kernel: KernelId) -> Result<()> {
        self.records.remove(kernel)
    }

    fn scratch(&self, kernel: KernelId) -> PathBuf {
        self.records.scratch(kernel)
    }

    fn on_disk(&self) -> bool {
        false
    }
}

/// A node whose agent can be replaced.
struct Node {
    agent: Agent,
    backend: Arc<SimulatedBackend>,
    store: Arc<Store>,
    kernels: Vec<KernelRef>,
}

async fn agent(backend: &Arc<SimulatedBackend>, store: &Arc<Store>, mask: &[&str]) -> Agent {
    let mut options = AgentOptions::new("i-test", "/nowhere");
    (options.cpu, options.mem) = (Some(4), Some(1 << 30));
    options.device_mask.insert("cuda".into(), mask.iter().map(|id| (*id).to_owned()).collect());
    let gpus = MockPlugin::new(&MockConfig::parse(GPUS).unwrap(), &MockSettings::default()).unwrap();
    Agent::builder(options)
        .simulated(backend)
        .state(Arc::clone(store) as _)
        .plugins(vec![Box::new(gpus)])
        .manager(Arc::new(FakeManager::default()))
        .start()
        .await
        .unwrap()
}

fn spec(cpu: &str, gpus: u32) -> KernelSpec {
    let mut spec = crate::testing::spec();
    spec.slots.insert("cpu", cpu.parse::<Amount>().unwrap());
    spec.slots.insert("cuda.device", gpus);
    spec
}

type Devices = BTreeMap<(SlotName, DeviceId), Amount>;

fn add(sum: &mut Devices, held: &Holding) {
    for (slot, devices) in held {
        for (device, amount) in devices {
            let entry = sum.entry((slot.clone(), device.clone())).or_default();
            *entry = entry.saturating_add(*amount);
        }
    }
}

impl Node {
    async fn new(start_delay: Duration) -> Self {
        let options =
            SimulatedOptions { start_delay: (Duration::ZERO, start_delay), ..SimulatedOptions::default() };
        let backend = SimulatedBackend::new(options);
        let records = MemoryState::new(std::path::Path::new("/nowhere"));
        let store = Arc::new(Store { records, broken: AtomicBool::new(false) });
        Self { agent: agent(&backend, &store, &[]).await, backend, store, kernels: Vec::new() }
    }

    /// The agent is gone from one moment to the next, and another comes.
    async fn crash(&mut self, mask: &[&str]) {
        self.agent.core.stop.cancel();
        self.agent.core.tasks.close();
        self.agent.core.tasks.wait().await;
        self.agent = agent(&self.backend, &self.store, mask).await;
    }

    async fn create(&mut self, spec: KernelSpec) -> KernelRef {
        let kernel = spec.kernel;
        self.agent.create_kernels(vec![spec]).await.unwrap();
        self.kernels.retain(|known| known.id != kernel.id);
        self.kernels.push(kernel);
        kernel
    }

    /// Waits until the kernel would survive a crash of the agent.
    async fn stored(&self, kernel: KernelRef) {
        let stored = async {
            while !self.store.load().unwrap().iter().any(|record| record.spec.kernel == kernel) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), stored).await.unwrap();
    }

    /// Waits until nothing changes any more.
    async fn settle(&self) {
        let settled = async {
            loop {
                let kernels: Vec<_> = self.agent.core.kernels.lock().values().cloned().collect();
                let steady = |kernel: &Arc<crate::kernel::Kernel>| {
                    let signals = kernel.signals.borrow();
                    let ending = signals.stop.is_some() || signals.exit.is_some();
                    signals.over || (kernel.phase() == Phase::Running && !ending)
                };
                if kernels.iter().all(steady) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap();
    }

    /// The devices of a kernel, by the record that the agent goes by.
    fn holding(&self, kernel: KernelRef) -> Holding {
        self.agent.core.kernel(kernel).unwrap().record().allocation
    }

    fn phase(&self, kernel: KernelRef) -> Phase {
        self.agent.core.kernel(kernel).unwrap().phase()
    }

    fn pool(&self) -> Devices {
        let mut sum = Devices::new();
        add(&mut sum, &self.agent.core.plugins.held());
        sum
    }

    fn check(&self) {
        let mut stored = Devices::new();
        let records = self.store.load().unwrap();
        records.iter().filter(|record| !record.phase.is_over()).for_each(|r| add(&mut stored, &r.allocation));
        assert_eq!(self.pool(), stored, "{records:?}");
        let capacity = self.agent.core.plugins.capacity();
        let held = self.agent.core.plugins.held().totals();
        assert!(held.fits_in(&capacity), "{held} of {capacity}: {records:#?}");
    }
}

#[tokio::test]
async fn a_kernel_whose_record_cannot_be_written_holds_nothing() {
    let mut node = Node::new(Duration::ZERO).await;
    node.store.broken.store(true, Ordering::Relaxed);
    let kernel = node.create(spec("4", 4)).await;
    assert_eq!(node.holding(kernel).total("cuda.device"), 4.into());
    node.settle().await;
    assert!(matches!(node.phase(kernel), Phase::Failed { .. }));
    assert!(node.pool().is_empty(), "{:?}", node.pool());
    node.store.broken.store(false, Ordering::Relaxed);
    let next = node.create(spec("4", 4)).await;
    node.settle().await;
    assert_eq!(node.phase(next), Phase::Running);
    node.check();
}

#[tokio::test]
async fn a_kernel_that_comes_again_keeps_its_devices_unless_it_wants_others() {
    let mut node = Node::new(Duration::ZERO).await;
    let mut first = spec("1", 1);
    node.create(first.clone()).await;
    node.settle().await;
    let before = node.holding(first.kernel);
    // Another would be chosen now, if one were chosen.
    let blocked = node.create(spec("1", 1)).await;
    node.settle().await;
    first.kernel.generation += 1;
    node.create(first.clone()).await;
    assert_eq!(node.holding(first.kernel), before);
    node.settle().await;
    node.check();

    // All that is left and what it had.
    first.kernel.generation += 1;
    first.slots.insert("cuda.device", 3);
    node.create(first.clone()).await;
    node.settle().await;
    assert_eq!((node.phase(first.kernel), node.phase(blocked)), (Phase::Running, Phase::Running));
    node.check();
}

#[tokio::test]
async fn what_a_predecessor_still_runs_on_is_given_to_nobody_else() {
    let mut node = Node::new(Duration::ZERO).await;
    let mut first = spec("1", 2);
    node.create(first.clone()).await;
    node.settle().await;
    first.kernel.generation += 1;
    first.slots.insert("cuda.device", 1);
    node.create(first.clone()).await;
    // Two of four are in use until the predecessor has ended, though one is wanted from then on.
    let greedy = node.create(spec("1", 3)).await;
    let modest = node.create(spec("1", 2)).await;
    node.stored(modest).await;
    node.crash(&[]).await;
    node.settle().await;
    assert_eq!(node.phase(modest), Phase::Running);
    assert!(!matches!(node.agent.core.kernel(greedy).map(|kernel| kernel.phase()), Ok(Phase::Running)));
    node.check();
}

#[tokio::test]
async fn a_masked_device_is_left_when_its_kernel_comes_again() {
    let mut node = Node::new(Duration::ZERO).await;
    let mut first = spec("1", 1);
    node.create(first.clone()).await;
    node.settle().await;
    let held = node.holding(first.kernel);
    let masked = held.devices("cuda.device").next().unwrap().0.as_str();
    node.crash(&[masked]).await;
    node.settle().await;
    assert_eq!(node.holding(first.kernel), held, "what runs is not argued with");
    first.kernel.generation += 1;
    node.create(first.clone()).await;
    node.settle().await;
    assert!(node.holding(first.kernel).amount("cuda.device", masked).is_zero());
    assert_eq!(node.phase(first.kernel), Phase::Running);
    node.check();
}

#[tokio::test]
async fn kernels_of_one_session_are_near_each_other() {
    let mut node = Node::new(Duration::ZERO).await;
    let alone = node.create(spec("0.1", 1)).await;
    let [mut main, mut sub] = [spec("1", 1), spec("1", 1)];
    sub.session = main.session;
    (main.hostname, sub.hostname) = ("main1".into(), "sub1".into());
    let kernels = [main.kernel, sub.kernel];
    // The second kernel may also come later.
    node.agent.create_kernels(vec![main]).await.unwrap();
    let stranger = node.create(spec("0.1", 0)).await;
    node.agent.create_kernels(vec![sub]).await.unwrap();
    let gpu = |kernel| node.holding(kernel).devices("cuda.device").next().unwrap().0.to_string();
    let of_node = |gpu: &str| u32::from(gpu == "gpu-b" || gpu == "gpu-d");
    let [first, second] = kernels.map(|kernel| of_node(&gpu(kernel)));
    assert_eq!(first, second);
    assert_ne!(first, of_node(&gpu(alone)), "the first of a session goes where most is left");
    assert_eq!(node.holding(stranger).total("cuda.device"), Amount::ZERO);
}

/// What happens to a node.
#[derive(Debug, Clone)]
enum Step {
    Create {
        cpu: &'static str,
        gpus: u32,
    },
    Again {
        kernel: usize,
        gpus: Option<u32>,
    },
    Destroy(usize),
    /// Its sandbox ends by itself.
    Exit(usize),
    Crash,
    /// Some of what was begun goes on.
    Pause(u64),
    Settle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let cpu = prop_oneof![Just("0.5"), Just("0.2"), Just("1"), Just("1.5"), Just("2")];
    let create = (cpu, 0..3_u32).prop_map(|(cpu, gpus)| Step::Create { cpu, gpus });
    let again = (any::<usize>(), prop::option::of(0..4_u32));
    let step = prop_oneof![
        5 => create,
        2 => again.prop_map(|(kernel, gpus)| Step::Again { kernel, gpus }),
        2 => any::<usize>().prop_map(Step::Destroy),
        1 => any::<usize>().prop_map(Step::Exit),
        2 => Just(Step::Crash),
        3 => (0..4_u64).prop_map(Step::Pause),
        2 => Just(Step::Settle),
    ];
    prop::collection::vec(step, 1..24)
}

impl Node {
    fn chosen(&self, number: usize) -> Option<KernelRef> {
        self.kernels.get(number.checked_rem(self.kernels.len())?).copied()
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Create { cpu, gpus } => drop(self.create(spec(cpu, gpus)).await),
            Step::Again { kernel, gpus } => {
                let known = self.chosen(kernel).and_then(|kernel| self.agent.core.kernel(kernel).ok());
                if let Some(mut spec) = known.map(|known| known.record().spec) {
                    spec.kernel.generation += 1;
                    if let Some(gpus) = gpus {
                        spec.slots.insert("cuda.device", gpus);
                    }
                    self.create(spec).await;
                }
            }
            Step::Destroy(number) => {
                if let Some(kernel) = self.chosen(number) {
                    // Unknown when the crash came before the record.
                    let _ = self.agent.destroy_kernel(kernel, "user-requested").await;
                }
            }
            Step::Exit(number) => {
                let exit = KernelExit { code: Some(0), reason: "self-terminated".into(), oom: false };
                self.chosen(number).into_iter().for_each(|kernel| self.backend.exit(kernel, exit.clone()));
            }
            Step::Crash => self.crash(&[]).await,
            Step::Pause(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Step::Settle => {
                self.settle().await;
                self.check();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_held_is_what_the_living_records_say(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut node = Node::new(Duration::from_millis(3)).await;
            for step in steps {
                node.step(step).await;
            }
            node.settle().await;
            node.check();
            let kernels: Vec<_> = node.agent.core.kernels.lock().values().cloned().collect();
            for kernel in &kernels {
                kernel.stop("user-requested");
            }
            node.settle().await;
            assert!(node.pool().is_empty(), "{:?}", node.pool());
        });
    }
}
