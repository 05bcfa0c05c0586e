use super::*;
use crate::plugin::Plugins;
use crate::plugin::{CpuPlugin, MemPlugin};

const FILE: &str = r#"
slot_name = "cuda"
device_plugin_name = "CUDADevice"
unknown_key = 1

[attributes]
nvidia_driver = "470.57.02"
cuda_runtime = "11.4"

[formats.shares]
display_unit = "fGPU"
display_icon = "gpu1"
human_readable_name = "fGPU"
description = "CUDA-capable GPU (fractional)"
number_format = { binary = false, round_length = 2 }

[formats."*-mig"]
display_unit = "GPU"
display_icon = "gpu-mig"
human_readable_name = "MIG GPU"
description = "A part of a GPU"
number_format = { binary = false, round_length = 0 }

[[devices]]
mother_uuid = "gpu-a"
model_name = "CUDA GPU"
numa_node = 0
subproc_count = 108
memory_size = "10g"

[[devices]]
mother_uuid = "gpu-b"
model_name = "CUDA GPU"
numa_node = 1
subproc_count = 20
memory_size = 10737418240
"#;

const MIG: &str = r#"
[[devices]]
mother_uuid = "gpu-c"
model_name = "CUDA GPU MIG 1g.5gb"
subproc_count = 14
memory_size = "5g"
is_mig_device = true

[[devices]]
mother_uuid = "gpu-c"
model_name = "CUDA GPU MIG 1g.5gb"
subproc_count = 14
memory_size = "5g"
is_mig_device = true
"#;

fn plugin(file: &str, settings: &str) -> Result<MockPlugin> {
    MockPlugin::new(&MockConfig::parse(file)?, &toml::from_str(settings).unwrap())
}

fn want(slots: &[(&str, &str)]) -> ResourceSlots {
    slots.iter().map(|(slot, amount)| (*slot, amount.parse::<Amount>().unwrap())).collect()
}

#[test]
fn whole_devices_are_given_masked_ones_are_not() {
    let plugin = plugin(FILE, r#"device_mask = ["gpu-a"]"#).unwrap();
    assert_eq!((plugin.key(), plugin.version()), ("cuda", "11.4".into()));
    assert_eq!(plugin.capacity(), want(&[("cuda.device", "1")]));
    let kernel = KernelId::random();
    let held = plugin.allocate(kernel, &want(&[("cuda.device", "1")])).unwrap();
    let error = plugin.allocate(KernelId::random(), &want(&[("cuda.device", "1")])).unwrap_err();
    assert_eq!(error.code(), code::OVER_CAPACITY);
    let mut grant = Grant::default();
    plugin.grant(&held, &mut grant);
    assert_eq!(grant.environ["BACKENDAI_MOCK_CUDA_DEVICES"], "gpu-b");
    assert_eq!(grant.environ["BACKENDAI_MOCK_CUDA_DEVICE_COUNT"], "1");
    assert_eq!(grant.environ["TF_MIN_GPU_MULTIPROCESSOR_COUNT"], "4");
    assert_eq!(grant.resource_lines, ["CUDA_GLOBAL_DEVICE_IDS=0:gpu-b", "CUDA_RESOURCE_VIRTUALIZED=0"]);
    let shown = json!({"device_id": "gpu-b", "model_name": "CUDA GPU", "data": {"smp": 20, "mem": 10_737_418_240_u64}});
    assert_eq!(plugin.attached(&held), [shown]);
    plugin.release(kernel);
    plugin.release(kernel);
    plugin.allocate(KernelId::random(), &want(&[("cuda.device", "1")])).unwrap();
}

#[test]
fn shares_are_the_lesser_of_memory_and_processors() {
    let plugin = plugin(FILE, r#"allocation_mode = "fractional""#).unwrap();
    // 10 GiB are five units of memory; 20 processors are two and a half units.
    assert_eq!(plugin.capacity(), want(&[("cuda.shares", "7.5")]));
    assert_eq!(plugin.format("cuda.shares").unwrap().display_unit, "fGPU");
    assert_eq!(plugin.format("cuda.device"), None);
    let held = plugin.allocate(KernelId::random(), &want(&[("cuda.shares", "0.5")])).unwrap();
    let mut grant = Grant::default();
    plugin.grant(&held, &mut grant);
    assert_eq!(
        grant.resource_lines,
        [
            "CUDA_GLOBAL_DEVICE_IDS=0:gpu-b",
            "CUDA_RESOURCE_VIRTUALIZED=1",
            "CUDA_MEMORY_LIMITS=0:1073741824",
            "CUDA_PROCESSOR_LIMITS=0:4",
            "CUDA_RESERVED_MEMORY=67108864",
        ]
    );
    // 5.8 do not fit into one device and come from two, unless that is forbidden.
    let large = want(&[("cuda.shares", "5.8")]);
    assert_eq!(plugin.allocate(KernelId::random(), &large).unwrap().0["cuda.shares"].len(), 2);
    let whole = self::plugin(
        FILE,
        "allocation_mode = \"fractional\"\nallow_fractional_resource_fragmentation = false",
    );
    assert_eq!(whole.unwrap().allocate(KernelId::random(), &large).unwrap_err().code(), code::OVER_CAPACITY);
}

#[test]
fn parts_of_devices_have_slots_of_their_own() {
    let plugin = plugin(&format!("{FILE}{MIG}"), "").unwrap();
    let slot = "cuda.device:1g.5gb-mig";
    assert_eq!(plugin.capacity(), want(&[("cuda.device", "2"), (slot, "2")]));
    assert_eq!(plugin.slot_types()[1], (slot.into(), SlotType::Unique));
    assert_eq!(plugin.format(slot).unwrap().display_icon, "gpu-mig");
    let kernels = [KernelId::random(), KernelId::random()];
    let given = kernels.map(|kernel| plugin.allocate(kernel, &want(&[(slot, "1")])).unwrap());
    assert_ne!(given[0], given[1]);
    for wrong in [want(&[(slot, "2")]), want(&[(slot, "1"), ("cuda.device", "1")])] {
        assert_eq!(plugin.allocate(KernelId::random(), &wrong).unwrap_err().code(), code::INVALID_SLOTS);
    }
}

#[test]
fn what_kernels_hold_survives_a_restart_of_the_agent() {
    let before = plugin(FILE, "").unwrap();
    let kernel = KernelId::random();
    let held = before.allocate(kernel, &want(&[("cuda.device", "1")])).unwrap();
    let record = serde_json::to_string(&held).unwrap();

    let after = plugin(FILE, "").unwrap();
    after.restore(kernel, &serde_json::from_str(&record).unwrap());
    let other = after.allocate(KernelId::random(), &want(&[("cuda.device", "1")])).unwrap();
    assert_ne!(other, held);
    assert!(after.allocate(KernelId::random(), &want(&[("cuda.device", "1")])).is_err());
    after.release(kernel);
    assert_eq!(after.allocate(KernelId::random(), &want(&[("cuda.device", "1")])).unwrap(), held);
}

#[test]
fn a_failure_of_another_family_gives_devices_back() {
    let all: Vec<Box<dyn ComputePlugin>> = vec![
        Box::new(plugin(FILE, "").unwrap()),
        Box::new(CpuPlugin::new(vec![0, 1], 1, true)),
        Box::new(MemPlugin::new(1 << 30, 0, 1, 1)),
    ];
    let plugins = Plugins::new(all);
    let wanted = |cores: &str| want(&[("cuda.device", "2"), ("cpu", cores), ("mem", "1")]);
    let error = plugins.allocate(KernelId::random(), &wanted("3")).unwrap_err();
    assert_eq!(error.code(), code::OVER_CAPACITY);
    assert_eq!(plugins.allocate(KernelId::random(), &wanted("2")).unwrap().total("cuda.device"), 2.into());
}

#[test]
fn senseless_configurations_are_refused() {
    let twice = FILE.replace("gpu-b", "gpu-a");
    let unnamed = format!("{FILE}{MIG}").replace("MIG 1g.5gb", "");
    for (file, settings) in [
        ("slot_name = 1", ""),
        (&twice, ""),
        (&unnamed, ""),
        (FILE, "quantum_size = \"0\""),
        (FILE, "unit_proc = 0"),
    ] {
        assert_eq!(plugin(file, settings).unwrap_err().code(), code::CONFIG_INVALID, "{settings} {file}");
    }
}
