//! Several families in one pool.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::mock::{MockConfig, MockPlugin, MockSettings};
use super::*;

const GPUS: &str = r#"
slot_name = "cuda"
device_plugin_name = "CUDADevice"
devices = [
    { mother_uuid = "gpu-a", model_name = "GPU", numa_node = 0, subproc_count = 8, memory_size = "2g" },
    { mother_uuid = "gpu-b", model_name = "GPU", numa_node = 1, subproc_count = 8, memory_size = "2g" },
]
"#;

fn options() -> AgentOptions {
    AgentOptions::new("i-test", "/nowhere")
}

fn setup(options: &AgentOptions) -> PluginSetup {
    let gpus = MockPlugin::new(&MockConfig::parse(GPUS).unwrap(), &MockSettings::default()).unwrap();
    let plugins: Vec<Box<dyn ComputePlugin>> = vec![
        Box::new(CpuPlugin::new(vec![0, 1, 2, 3], options.cpu_overcommit, options.pin_cpus)),
        Box::new(MemPlugin::new(1 << 30, 0, 1, 1)),
        Box::new(gpus),
    ];
    PluginSetup::new(plugins, options)
}

fn want(cpu: &str, mem: u64, gpus: u32) -> ResourceSlots {
    let mut slots: ResourceSlots = [("mem", mem), ("cuda.device", gpus.into())].into_iter().collect();
    slots.insert("cpu", cpu.parse::<Amount>().unwrap());
    slots
}

fn take(plugins: &Plugins, wanted: &ResourceSlots) -> Result<Allocation> {
    plugins.allocate(wanted, &AffinityHint::default())
}

#[test]
fn a_failure_of_one_family_takes_nothing_of_another() {
    let plugins = setup(&options()).open();
    let error = take(&plugins, &want("5", 1, 2)).unwrap_err();
    assert_eq!(error.code(), code::OVER_CAPACITY);
    let all = take(&plugins, &want("4", 1 << 30, 2)).unwrap();
    assert_eq!(all.held().total("cuda.device"), 2.into());
}

#[test]
fn whole_cores_are_exclusive_while_they_last() {
    let plugins = setup(&options()).open();
    let cores = |held: &Allocation| plugins.grant(held.held()).limits.cpuset;
    let half = take(&plugins, &want("0.5", 1, 0)).unwrap();
    let other = take(&plugins, &want("0.5", 1, 0)).unwrap();
    assert_eq!(cores(&half), cores(&other), "parts are of the core that is broken already");
    let whole = take(&plugins, &want("2", 1, 0)).unwrap();
    assert!(cores(&whole).len() == 2 && !cores(&whole).contains(&cores(&half)[0]));
    drop(half);
    // What is left is half of one core and another.
    let rest = take(&plugins, &want("1.5", 1, 0)).unwrap();
    assert_eq!(plugins.grant(rest.held()).limits.cpu, Some(1.5));
    assert_eq!(cores(&rest).len(), 2);
    assert_eq!(take(&plugins, &want("0.1", 1, 0)).unwrap_err().code(), code::OVER_CAPACITY);
}

#[test]
fn kernels_need_cpu_and_mem_in_amounts_that_make_sense() {
    let plugins = setup(&options()).open();
    let mut unknown = want("1", 1, 0);
    unknown.insert("npu.device", 1);
    let mut half = want("1", 1, 0);
    half.insert("mem", "1.5".parse::<Amount>().unwrap());
    for wrong in [want("0", 1, 0), want("1", 0, 0), want("inf", 1, 0), unknown, half] {
        assert_eq!(take(&plugins, &wrong).unwrap_err().code(), code::INVALID_SLOTS, "{wrong:?}");
    }
}

#[test]
fn masked_devices_are_kept_out_of_use() {
    let mut options = options();
    options.device_mask.insert("cuda".into(), vec!["gpu-a".into(), "0".into()]);
    let plugins = setup(&options).open();
    assert_eq!(plugins.capacity(), want("4", 1 << 30, 1));
    let taken = take(&plugins, &want("1", 1, 1)).unwrap();
    assert_eq!(plugins.grant(taken.held()).environ["BACKENDAI_MOCK_CUDA_DEVICES"], "gpu-b");
}

#[test]
fn a_mask_that_names_nothing_is_noticed() {
    let mut options = options();
    options.device_mask.insert("cuda".into(), vec!["gpu-a".into(), "gpu-z".into()]);
    options.device_mask.insert("npu".into(), vec!["0".into()]);
    let unknown: Vec<_> = unknown(&setup(&options).families, &options.device_mask)
        .map(|(key, id)| format!("{key} {id}"))
        .collect();
    assert_eq!(unknown, ["cuda gpu-z", "npu 0"]);
}

/// What happens to a node.
#[derive(Debug, Clone)]
enum Step {
    Create {
        cpu: String,
        mem: u64,
        gpus: u32,
    },
    Destroy(usize),
    /// The agent vanishes and comes back, perhaps under another configuration.
    Crash {
        pin: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let cpu = prop_oneof![Just("0.5"), Just("0.2"), Just("1"), Just("1.5"), Just("2")];
    let create = (cpu, 1..=1_u64 << 29, 0..3_u32).prop_map(|(cpu, mem, gpus)| Step::Create {
        cpu: cpu.into(),
        mem,
        gpus,
    });
    let crash = prop::bool::weighted(0.7).prop_map(|pin| Step::Crash { pin });
    prop::collection::vec(
        prop_oneof![4 => create, 2 => any::<usize>().prop_map(Step::Destroy), 1 => crash],
        1..40,
    )
}

/// A node as its records and values say.
struct Node {
    plugins: Plugins,
    kernels: Vec<(String, Allocation)>,
}

impl Node {
    fn record(held: &Holding) -> String {
        serde_json::to_string(held).unwrap()
    }

    fn step(mut self, step: Step) -> Self {
        match step {
            Step::Create { cpu, mem, gpus } => {
                if let Ok(taken) = take(&self.plugins, &want(&cpu, mem, gpus)) {
                    self.kernels.push((Self::record(taken.held()), taken));
                }
            }
            Step::Destroy(number) if !self.kernels.is_empty() => {
                self.kernels.swap_remove(number % self.kernels.len());
            }
            Step::Destroy(_) => {}
            Step::Crash { pin } => self = self.restarted(pin),
        }
        self
    }

    /// Only what was written is known afterwards.
    fn restarted(self, pin: bool) -> Self {
        let mut records: Vec<Holding> =
            self.kernels.iter().map(|(record, _)| serde_json::from_str(record).unwrap()).collect();
        let setup = setup(&AgentOptions { pin_cpus: pin, ..options() });
        setup.adopt(&mut records.iter_mut().collect::<Vec<_>>());
        let kernels = records.into_iter().map(|held| (Self::record(&held), setup.restore(held))).collect();
        assert_eq!(setup.excess(), []);
        Self { plugins: setup.open(), kernels }
    }

    fn check(&self) {
        let mut sum: BTreeMap<(SlotName, String), Amount> = BTreeMap::new();
        for (record, _) in &self.kernels {
            let held: Holding = serde_json::from_str(record).unwrap();
            for (slot, devices) in &held {
                for (device, amount) in devices {
                    let entry = sum.entry((slot.clone(), device.to_string())).or_default();
                    *entry = entry.saturating_add(*amount);
                }
            }
        }
        let held = self.plugins.pool.held();
        let held: BTreeMap<_, _> = held
            .iter()
            .flat_map(|(slot, devices)| {
                devices.iter().map(|(device, amount)| ((slot.clone(), device.to_string()), *amount))
            })
            .collect();
        assert_eq!(held, sum);
        assert!(self.plugins.pool.held().totals().fits_in(&self.plugins.capacity()));
    }
}

proptest! {
    #[test]
    fn what_is_held_is_what_the_living_records_say(steps in steps()) {
        let mut node = Node { plugins: setup(&options()).open(), kernels: Vec::new() };
        for step in steps {
            node = node.step(step);
            node.check();
        }
        node.kernels.clear();
        prop_assert!(node.plugins.pool.held().is_empty());
    }
}
