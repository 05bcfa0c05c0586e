use bai_core::slots::ResourceSlots;
use bai_scheduler::device::{AffinityHint, AllocError, Allocation, DevicePool, PoolOptions, PoolSetup};

use super::*;

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

fn setup(plugin: &MockPlugin) -> PoolSetup {
    PoolSetup::new(vec![plugin.family()], PoolOptions::default())
}

fn want(slots: &[(&str, &str)]) -> ResourceSlots {
    slots.iter().map(|(slot, amount)| (*slot, amount.parse::<Amount>().unwrap())).collect()
}

fn take(pool: &DevicePool, slots: &[(&str, &str)]) -> std::result::Result<Allocation, AllocError> {
    pool.allocate(&want(slots), &AffinityHint::default())
}

fn code_of(taken: std::result::Result<Allocation, AllocError>) -> code::Code {
    Error::from(taken.unwrap_err()).code()
}

#[test]
fn whole_devices_are_given_masked_ones_are_not() {
    let plugin = plugin(FILE, r#"device_mask = ["gpu-a"]"#).unwrap();
    assert_eq!((plugin.key(), plugin.version()), ("cuda", "11.4".into()));
    let pool = setup(&plugin).open();
    assert_eq!(pool.capacity(), want(&[("cuda.device", "1")]));
    let taken = take(&pool, &[("cuda.device", "1")]).unwrap();
    assert_eq!(code_of(take(&pool, &[("cuda.device", "1")])), code::OVER_CAPACITY);
    let mut grant = Grant::default();
    plugin.grant(taken.held(), &mut grant);
    assert_eq!(grant.environ["BACKENDAI_MOCK_CUDA_DEVICES"], "gpu-b");
    assert_eq!(grant.environ["BACKENDAI_MOCK_CUDA_DEVICE_COUNT"], "1");
    assert_eq!(grant.environ["TF_MIN_GPU_MULTIPROCESSOR_COUNT"], "4");
    assert_eq!(grant.resource_lines, ["CUDA_GLOBAL_DEVICE_IDS=0:gpu-b", "CUDA_RESOURCE_VIRTUALIZED=0"]);
    let shown = json!({"device_id": "gpu-b", "model_name": "CUDA GPU", "data": {"smp": 20, "mem": 10_737_418_240_u64}});
    assert_eq!(plugin.attached(taken.held()), [shown]);
    assert!(plugin.attached(&Holding::new()).is_empty());
}

#[test]
fn a_kernel_is_told_of_a_device_that_was_masked_since_it_started() {
    let plugin = plugin(FILE, r#"device_mask = ["gpu-a"]"#).unwrap();
    let mut held = Holding::new();
    held.insert("cuda.device", "gpu-a", 1);
    held.insert("cuda.device", "gone", 1);
    let shown = plugin.attached(&held);
    assert_eq!((shown.len(), &shown[0]["device_id"]), (1, &json!("gpu-a")));
}

#[test]
fn shares_are_the_lesser_of_memory_and_processors() {
    let plugin = plugin(FILE, r#"allocation_mode = "fractional""#).unwrap();
    let pool = setup(&plugin).open();
    // 10 GiB are five units of memory; 20 processors are two and a half units.
    assert_eq!(pool.capacity(), want(&[("cuda.shares", "7.5")]));
    assert_eq!(plugin.format("cuda.shares").unwrap().display_unit, "fGPU");
    assert_eq!(plugin.format("cuda.device"), None);
    let taken = take(&pool, &[("cuda.shares", "0.5")]).unwrap();
    let mut grant = Grant::default();
    plugin.grant(taken.held(), &mut grant);
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
    let large = [("cuda.shares", "5.8")];
    assert_eq!(take(&pool, &large).unwrap().held().devices("cuda.shares").count(), 2);
    let whole = self::plugin(
        FILE,
        "allocation_mode = \"fractional\"\nallow_fractional_resource_fragmentation = false",
    );
    assert_eq!(code_of(take(&setup(&whole.unwrap()).open(), &large)), code::OVER_CAPACITY);
}

#[test]
fn parts_of_devices_have_slots_of_their_own() {
    let plugin = plugin(&format!("{FILE}{MIG}"), "").unwrap();
    let pool = setup(&plugin).open();
    let slot = "cuda.device:1g.5gb-mig";
    assert_eq!(pool.capacity(), want(&[("cuda.device", "2"), (slot, "2")]));
    assert_eq!(plugin.slot_types()[1], (slot.into(), SlotType::Unique));
    assert_eq!(plugin.format(slot).unwrap().display_icon, "gpu-mig");
    let given = [(); 2].map(|()| take(&pool, &[(slot, "1")]).unwrap());
    assert_ne!(given[0].held(), given[1].held());
    for wrong in [&[(slot, "2")][..], &[(slot, "1"), ("cuda.device", "1")]] {
        assert_eq!(code_of(take(&pool, wrong)), code::INVALID_SLOTS);
    }
}

#[test]
fn a_file_brings_its_settings() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mock-accelerator.toml");
    assert_eq!(MockPlugin::open(&file).unwrap_err().code(), code::CONFIG_INVALID);
    std::fs::write(&file, format!("{FILE}\n[settings]\nallocation_mode = \"fractional\"\n")).unwrap();
    let pool = setup(&MockPlugin::open(&file).unwrap()).open();
    assert_eq!(pool.capacity(), want(&[("cuda.shares", "7.5")]));
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
