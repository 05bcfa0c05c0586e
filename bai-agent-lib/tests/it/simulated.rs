//! The suites on simulated kernels, and what only simulation shows.

use std::sync::Arc;
use std::time::Duration;

use bai_agent_lib::Agent;
use bai_agent_lib::backend::simulated::{SimulatedBackend, SimulatedOptions};
use bai_agent_lib::state::DiskState;
use bai_core::port::AgentApi;
use bai_core::port::agent::{KernelRef, KernelStage};
use bai_core::port::backend::{Limits, StartSpec};
use bai_core::{KernelId, SessionId};
use bai_testkit::Subject;
use bai_testkit::agent_api::AgentUnderTest;
use bai_testkit::kernel_backend::BackendUnderTest;

use crate::support::{Node, options};

mod direct {
    use super::*;

    async fn fresh() -> Option<Subject<AgentUnderTest>> {
        let node = Node::new(SimulatedOptions::default());
        let agent = node.start().await;
        let subject = node.under_test(Arc::clone(&agent) as _);
        Some(Subject::new(Arc::new(subject)).cleanup(async move {
            agent.shutdown().await;
            drop(node);
        }))
    }

    bai_testkit::agent_api_conformance!(fresh);
}

mod backend {
    use super::*;

    #[allow(clippy::unused_async)] // what the suite takes
    async fn fresh() -> Option<Subject<BackendUnderTest>> {
        let delay = (Duration::from_millis(1), Duration::from_millis(3));
        let backend =
            SimulatedBackend::new(SimulatedOptions { start_delay: delay, ..SimulatedOptions::default() });
        let subject = BackendUnderTest { backend, spec: Box::new(spec) };
        Some(Subject::new(Arc::new(subject)))
    }

    fn spec() -> StartSpec {
        StartSpec {
            kernel: KernelRef { id: KernelId::random(), generation: 1 },
            session: SessionId::random(),
            agent: "i-test".into(),
            image: "python:3.11".into(),
            hostname: "main1".into(),
            runner: "/nowhere".into(),
            work_dir: "/nowhere".into(),
            config_dir: "/nowhere".into(),
            control_dir: "/nowhere".into(),
            limits: Limits::default(),
            image_labels: SimulatedOptions::default().images.remove(0).labels,
            ports: Vec::new(),
            uid_gid: (1000, 1000),
            cluster: None,
        }
    }

    bai_testkit::kernel_backend_conformance!(fresh);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_starts_are_reported_and_leave_nothing() {
    let node = Node::new(SimulatedOptions { start_failures: 0.5, seed: 7, ..SimulatedOptions::default() });
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let mut specs: Vec<_> = (0..40).map(|_| subject.spec()).collect();
    for spec in &mut specs {
        spec.slots.insert("cpu", "0.2".parse::<bai_core::slots::Amount>().unwrap());
    }
    let kernels: Vec<_> = specs.iter().map(|spec| spec.kernel).collect();
    agent.create_kernels(specs).await.unwrap();
    let (mut running, mut failed) = (0, 0);
    for kernel in kernels {
        let report = subject.report(kernel, |k| !matches!(k.stage, KernelStage::Preparing)).await;
        match report.stage {
            KernelStage::Running(_) => running += 1,
            KernelStage::Failed { .. } => failed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(running > 5 && failed > 5, "{running} {failed}");
    assert_eq!(node.backend.running(), running);
    // The failed ones hold nothing: 8 cores have room for what the others left.
    let mut rest = subject.spec();
    let cores = 8.0 - 0.2 * f64::from(u32::try_from(running).unwrap());
    rest.slots.insert("cpu", format!("{cores:.1}").parse::<bai_core::slots::Amount>().unwrap());
    agent.create_kernels(vec![rest.clone()]).await.unwrap();
    let report = subject.report(rest.kernel, |k| !matches!(k.stage, KernelStage::Preparing)).await;
    let code = match report.stage {
        KernelStage::Failed { code, .. } => code,
        _ => String::new(),
    };
    assert_ne!(code, bai_core::error::code::OVER_CAPACITY.id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kernel_can_be_ended_while_it_starts() {
    let delay = (Duration::from_mins(10), Duration::from_mins(10));
    let node = Node::new(SimulatedOptions { start_delay: delay, ..SimulatedOptions::default() });
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let spec = subject.spec();
    agent.create_kernels(vec![spec.clone()]).await.unwrap();
    subject.report(spec.kernel, |kernel| kernel.stage == KernelStage::Preparing).await;
    subject.end(spec.kernel).await;
    assert_eq!(node.backend.running(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creations_at_the_same_time_are_bounded() {
    let delay = (Duration::from_millis(50), Duration::from_millis(50));
    let node = Node::new(SimulatedOptions { start_delay: delay, ..SimulatedOptions::default() });
    let mut options = options(node.dir.path());
    options.creation_concurrency = 2;
    let agent = node.agent(options).await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let specs: Vec<_> = (0..6).map(|_| subject.spec()).collect();
    let kernels: Vec<_> = specs.iter().map(|spec| spec.kernel).collect();
    let before = tokio::time::Instant::now();
    agent.create_kernels(specs).await.unwrap();
    for kernel in kernels {
        subject.running(kernel).await;
    }
    assert!(before.elapsed() >= Duration::from_millis(150), "{:?}", before.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agents_own_share_of_a_start_is_small() {
    let node = Node::new(SimulatedOptions::default());
    // With everything that a real kernel gets on disk, and a back end that takes no time.
    let state = Arc::new(DiskState::open(node.dir.path()).unwrap());
    let builder = Agent::builder(options(node.dir.path())).simulated(&node.backend).state(state);
    let agent = Arc::new(builder.manager(Arc::clone(&node.manager) as _).start().await.unwrap());
    let subject = node.under_test(Arc::clone(&agent) as _);
    let mut times = Vec::new();
    for _ in 0..20 {
        let before = std::time::Instant::now();
        let kernel = subject.kernel().await;
        times.push(before.elapsed());
        subject.end(kernel).await;
        agent.forget(kernel).await.unwrap();
    }
    times.sort();
    eprintln!("create to reported Running: median {:?}", times[10]);
    assert!(times[10] < Duration::from_millis(100), "{times:?}");
    assert_eq!(std::fs::read_dir(node.dir.path().join("scratch")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_kernels_fit() {
    const COUNT: usize = 3000;
    let node = Node::new(SimulatedOptions::default());
    let mut options = options(node.dir.path());
    options.cpu = Some(10_000);
    options.mem = Some(1 << 50);
    options.pin_cpus = false;
    options.stats_interval = Duration::from_hours(1);
    let agent = node.agent(options).await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let specs: Vec<_> = (0..COUNT).map(|_| subject.spec()).collect();
    let last = specs[COUNT - 1].kernel;
    let before = std::time::Instant::now();
    agent.create_kernels(specs).await.unwrap();
    node.manager
        .report(|report| {
            report.kernels.iter().filter(|k| matches!(k.stage, KernelStage::Running(_))).count() == COUNT
        })
        .await;
    eprintln!("{COUNT} kernels in {:?}", before.elapsed());
    assert_eq!(node.backend.running(), COUNT);
    assert_eq!(subject.query(last, "print('here')").await.exit_code, Some(0));
    // Nothing was written for them.
    let scratch = node.dir.path().join("scratch");
    assert!(!scratch.exists() || std::fs::read_dir(scratch).unwrap().count() == 0);
}
