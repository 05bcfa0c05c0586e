//! Sessions with accelerators that do not exist, from the request to what kernel and manager see.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bai_agent_lib::Agent;
use bai_agent_lib::backend::simulated::SimulatedOptions;
use bai_agent_lib::plugin::ComputePlugin;
use bai_agent_lib::plugin::mock::{MockConfig, MockPlugin, MockSettings};
use bai_agent_lib::state::{DiskState, KernelRecord, Phase, StateStore};
use bai_core::error::code;
use bai_core::port::AgentApi;
use bai_core::port::agent::{KernelRef, KernelSpec, KernelStage};
use bai_testkit::agent_api::AgentUnderTest;
use serde_json::json;

use crate::support::{Node, options};

const GPUS: &str = r#"
slot_name = "cuda"
device_plugin_name = "CUDADevice"
attributes = { cuda_runtime = "12.4" }
devices = [
    { mother_uuid = "gpu-a", model_name = "Pretended GPU", subproc_count = 108, memory_size = "40g" },
    { mother_uuid = "gpu-b", model_name = "Pretended GPU", subproc_count = 108, memory_size = "40g" },
]
"#;

/// A node with two accelerators and everything of its kernels on disk.
async fn start(node: &Node) -> Arc<Agent> {
    let gpus = MockPlugin::new(&MockConfig::parse(GPUS).unwrap(), &MockSettings::default()).unwrap();
    let plugins: Vec<Box<dyn ComputePlugin>> = vec![Box::new(gpus)];
    let builder = Agent::builder(options(node.dir.path())).simulated(&node.backend).plugins(plugins);
    let builder = builder.state(Arc::new(DiskState::open(node.dir.path()).unwrap()));
    Arc::new(builder.manager(Arc::clone(&node.manager) as _).start().await.unwrap())
}

fn spec(subject: &AgentUnderTest, gpus: u32) -> KernelSpec {
    let mut spec = subject.spec();
    spec.slots.insert("cuda.device", gpus);
    spec
}

fn gpus_of(attached: &serde_json::Map<String, serde_json::Value>) -> Vec<String> {
    let devices = attached.get("cuda").and_then(|devices| devices.as_array()).cloned().unwrap_or_default();
    devices.iter().map(|device| device["device_id"].as_str().unwrap().to_owned()).collect()
}

async fn failure(subject: &AgentUnderTest, kernel: KernelRef) -> String {
    let failed = |stage: &KernelStage| matches!(stage, KernelStage::Failed { .. });
    let report = subject.report(kernel, |kernel| failed(&kernel.stage)).await;
    match report.stage {
        KernelStage::Failed { code, .. } => code,
        other => panic!("{other:?}"),
    }
}

fn records(dir: &Path) -> Vec<KernelRecord> {
    DiskState::open(dir).unwrap().load().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_with_accelerators_sees_them_and_so_does_the_manager() {
    let node = Node::new(SimulatedOptions::default());
    let agent = start(&node).await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let report = node.manager.report(|_| true).await;
    assert_eq!(report.capacity.get("cuda.device"), 2.into());
    assert!(report.slot_types.get("cuda.device").is_some());
    assert_eq!(report.compute_plugins["cuda"], json!({"version": "12.4"}));

    let kernel = subject.run(spec(&subject, 1)).await;
    let attached = subject.running(kernel).await.attached_devices;
    let device = |id| json!({"device_id": id, "model_name": "Pretended GPU", "data": {"smp": 108, "mem": 40_u64 << 30}});
    assert_eq!(json!(attached), json!({"cuda": [device("gpu-a")]}));
    let config = node.dir.path().join("scratch").join(kernel.id.to_string()).join("config");
    let resources = std::fs::read_to_string(config.join("resource.txt")).unwrap();
    for line in ["CUDA.DEVICE_SHARES=gpu-a:1", "CUDA_GLOBAL_DEVICE_IDS=0:gpu-a", "MEM_SHARES=root:256m"] {
        assert!(resources.lines().any(|known| known == line), "{line} in {resources}");
    }
    let environ = std::fs::read_to_string(config.join("environ.txt")).unwrap();
    assert!(environ.contains("BACKENDAI_MOCK_CUDA_DEVICES=gpu-a\n"), "{environ}");

    let too_many = spec(&subject, 2);
    let refused = too_many.kernel;
    agent.create_kernels(vec![too_many.clone()]).await.unwrap();
    assert_eq!(failure(&subject, refused).await, code::OVER_CAPACITY.id());
    subject.end(kernel).await;
    let again = KernelSpec { kernel: KernelRef { generation: 2, ..refused }, ..too_many };
    let both = subject.run(again).await;
    assert_eq!(gpus_of(&subject.running(both).await.attached_devices), ["gpu-a", "gpu-b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_of_a_kernel_that_had_not_started_are_not_given_away_after_a_crash() {
    let delay = (Duration::from_millis(300), Duration::from_millis(300));
    let node = Node::new(SimulatedOptions { start_delay: delay, ..SimulatedOptions::default() });
    let agent = start(&node).await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let first = spec(&subject, 1);
    agent.create_kernels(vec![first.clone()]).await.unwrap();
    while records(node.dir.path()).is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop((subject, agent));
    let before = records(node.dir.path()).remove(0);
    assert_eq!((before.phase, node.backend.running()), (Phase::Starting, 0));

    let agent = start(&node).await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    // Another one ends, which is when a map that is made again from what runs would forget the first.
    let short = subject.spec();
    agent.create_kernels(vec![short.clone()]).await.unwrap();
    subject.end(short.kernel).await;
    let [second, third] = [(); 2].map(|()| spec(&subject, 1));
    let kernels = [first.kernel, second.kernel];
    agent.create_kernels(vec![second, third.clone()]).await.unwrap();
    assert_eq!(failure(&subject, third.kernel).await, code::OVER_CAPACITY.id());
    let mut given = Vec::new();
    for kernel in kernels {
        given.extend(gpus_of(&subject.running(kernel).await.attached_devices));
    }
    assert_eq!(given, ["gpu-a", "gpu-b"]);
    assert_eq!(before.allocation.amount("cuda.device", "gpu-a"), 1.into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kernels_of_the_version_before_keep_their_share_of_the_cores() {
    let node = Node::new(SimulatedOptions::default());
    let agent = start(&node).await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let mut spec = subject.spec();
    spec.slots.insert("cpu", 5);
    let kernel = subject.run(spec).await;
    agent.shutdown().await;
    drop((subject, agent));
    let state = DiskState::open(node.dir.path()).unwrap();
    let mut record = state.load().unwrap().remove(0);
    record.allocation.replace("cpu", [("shared".into(), 5.into())]);
    state.save(&record).unwrap();

    let agent = start(&node).await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    subject.running(kernel).await;
    let [mut large, mut fitting] = [(); 2].map(|()| subject.spec());
    large.slots.insert("cpu", 4);
    fitting.slots.insert("cpu", 3);
    agent.create_kernels(vec![large.clone()]).await.unwrap();
    assert_eq!(failure(&subject, large.kernel).await, code::OVER_CAPACITY.id());
    let fitting = subject.run(fitting).await;
    let cores = records(node.dir.path())
        .into_iter()
        .find(|record| record.kernel() == fitting)
        .map(|record| record.allocation.devices("cpu").count());
    assert_eq!(cores, Some(3));
}
