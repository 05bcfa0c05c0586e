//! The agent on real sandboxes: the same suite as with simulated kernels, and crashes with everything on disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bai_agent_lib::{Agent, AgentOptions};
use bai_core::execution::{ExecuteMode, RunStatus};
use bai_core::port::KernelBackend;
use bai_core::port::agent::KernelStage;
use bai_testkit::Subject;
use bai_testkit::agent_api::{AgentUnderTest, FakeManager, request, text_of};

use super::kernel::Host;

/// Time between SIGTERM and SIGKILL.
pub(super) const GRACE: Duration = Duration::from_millis(500);

pub(super) async fn start(host: &Host, manager: &Arc<FakeManager>) -> Arc<Agent> {
    let process = host.options();
    let mut options = AgentOptions::new(process.agent.as_str(), &host.dir);
    options.runner = process.runner.clone();
    options.cpu = Some(8);
    options.mem = Some(16 << 30);
    options.pin_cpus = false;
    options.stop_grace = GRACE;
    let backend = Arc::new(host.backend().await);
    let builder = Agent::builder(options).backend(backend).manager(Arc::clone(manager) as _);
    Arc::new(builder.start().await.unwrap())
}

pub(super) async fn under_test(agent: &Arc<Agent>, manager: &Arc<FakeManager>) -> AgentUnderTest {
    let images = manager.images().await;
    let python = images.into_iter().find(|image| image.name.starts_with("python:")).unwrap();
    AgentUnderTest {
        api: Arc::clone(agent) as _,
        manager: Arc::clone(manager),
        image: python.name,
        image_labels: python.labels,
    }
}

async fn fresh() -> Option<Subject<AgentUnderTest>> {
    let (host, manager) = (Host::new(), Arc::default());
    let agent = start(&host, &manager).await;
    let subject = under_test(&agent, &manager).await;
    Some(Subject::new(Arc::new(subject)).cleanup(async move {
        agent.shutdown().await;
        drop(host);
    }))
}

bai_testkit::agent_api_conformance!(fresh);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_costs_neither_state_nor_output_nor_log() {
    let (host, manager) = (Host::new(), Arc::default());
    let agent = start(&host, &manager).await;
    let subject = under_test(&agent, &manager).await;
    let kernel = subject.kernel().await;
    subject.query(kernel, "x = 'kept'\nprint('before')").await;
    let code =
        "import time\nprint('one', flush=True)\ntime.sleep(0.5)\nprint('two')\ny = input('? ')\nprint(y)";
    let mut run = request(ExecuteMode::Query, Some("r"), code);
    run.flush_timeout_ms = 200;
    let first = subject.call(kernel, run).await;
    assert_eq!(text_of(&first, "stdout"), "one\n");
    let container = subject.running(kernel).await.container_id;
    drop((subject, agent));
    tokio::time::sleep(Duration::from_millis(700)).await;

    let manager = Arc::default();
    let agent = start(&host, &manager).await;
    let subject = under_test(&agent, &manager).await;
    assert_eq!(subject.running(kernel).await.container_id, container);
    let mut next = request(ExecuteMode::Continue, Some("r"), "");
    next.flush_timeout_ms = 10_000;
    let asked = subject.call(kernel, next).await;
    assert_eq!((asked.status, text_of(&asked, "stdout").as_str()), (RunStatus::WaitingInput, "two\n? "));
    let given = subject.call(kernel, request(ExecuteMode::Input, Some("r"), "line")).await;
    assert_eq!(text_of(&subject.collect(kernel, given).await, "stdout"), "line\n");
    assert_eq!(text_of(&subject.query(kernel, "print(x)").await, "stdout"), "kept\n");
    let log = String::from_utf8(subject.api.logs(kernel).await.unwrap()).unwrap();
    for line in ["before\n", "one\n", "two\n", "line\n", "kept\n"] {
        assert_eq!(log.matches(line).count(), 1, "{line:?} in {log:?}");
    }
    subject.end(kernel).await;
    subject.api.forget(kernel).await.unwrap();
    assert!(!host.dir.join("scratch").join(kernel.id.to_string()).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_output_arrives_whole_and_an_abandoned_one_blocks_nobody() {
    let (host, manager) = (Host::new(), Arc::default());
    let agent = start(&host, &manager).await;
    let subject = under_test(&agent, &manager).await;
    let kernel = subject.kernel().await;
    let code = "import sys\nfor i in range(20):\n    sys.stdout.write('x' * (1 << 20))\nprint('end')";
    let before = Instant::now();
    let reply = subject.query(kernel, code).await;
    let text = text_of(&reply, "stdout");
    assert_eq!((text.len(), text.ends_with("xend\n")), ((20 << 20) + 4, true));
    eprintln!("20 MiB in {:?}", before.elapsed());

    let mut flood = request(ExecuteMode::Query, Some("abandoned"), code);
    flood.flush_timeout_ms = 0;
    subject.call(kernel, flood).await;
    let next =
        tokio::time::timeout(Duration::from_mins(1), subject.query(kernel, "print('next')")).await.unwrap();
    assert_eq!(text_of(&next, "stdout"), "next\n");
    let abandoned = subject.call(kernel, request(ExecuteMode::Continue, Some("abandoned"), "")).await;
    assert!(text_of(&abandoned, "stderr").contains("output dropped"), "{:?}", abandoned.status);
    assert!(subject.api.logs(kernel).await.unwrap().len() <= 10 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agents_own_share_of_a_start_is_small() {
    let (host, manager) = (Host::new(), Arc::default());
    let agent = start(&host, &manager).await;
    let subject = under_test(&agent, &manager).await;
    let mut times = Vec::new();
    for _ in 0..10 {
        let before = Instant::now();
        let kernel = subject.kernel().await;
        times.push(before.elapsed());
        subject.end(kernel).await;
    }
    times.sort();
    eprintln!("create to Running: median {:?}, {times:?}", times[5]);
    assert!(times[5] < Duration::from_secs(2), "{times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kernel_that_dies_is_reported_with_its_exit_code() {
    let (host, manager) = (Host::new(), Arc::default());
    let agent = start(&host, &manager).await;
    let subject = under_test(&agent, &manager).await;
    let kernel = subject.kernel().await;
    let backend = host.backend().await;
    backend.stop(kernel, Duration::from_millis(200)).await.unwrap();
    let report = subject.report(kernel, |kernel| matches!(kernel.stage, KernelStage::Exited(_))).await;
    let KernelStage::Exited(exit) = report.stage else { unreachable!() };
    assert!(exit.code.is_some() && !exit.oom, "{exit:?}");
}
