//! What the manager is told, and when.

use std::sync::Arc;
use std::time::Duration;

use bai_agent_lib::backend::simulated::SimulatedOptions;
use bai_core::port::agent::KernelStage;
use bai_core::session::KernelExit;

use crate::support::{Node, options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_reported_at_once_and_images_only_when_they_change() {
    let node = Node::new(SimulatedOptions::default());
    let mut slow = options(node.dir.path());
    slow.report_interval = Duration::from_hours(1);
    let agent = node.agent(slow).await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    assert!(!node.manager.images().await.is_empty());
    let kernel = subject.kernel().await;
    assert!(node.manager.last().unwrap().images.is_none());
    let exit = KernelExit { code: Some(9), reason: "self-terminated".into(), oom: false };
    node.backend.exit(kernel, exit.clone());
    let report = subject.report(kernel, |kernel| matches!(kernel.stage, KernelStage::Exited(_))).await;
    assert_eq!(report.stage, KernelStage::Exited(exit));
    node.manager.ask_for_images(true);
    subject.kernel().await;
    tokio::time::timeout(Duration::from_secs(5), node.manager.report(|report| report.images.is_some()))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_manager_is_tried_again() {
    let node = Node::new(SimulatedOptions::default());
    node.manager.set_down(true);
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    agent_runs_without_manager(&node).await;
    node.manager.set_down(false);
    subject.kernel().await;
    assert!(!node.manager.images().await.is_empty());
}

async fn agent_runs_without_manager(node: &Node) {
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(node.manager.last().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaving_agent_says_so_and_its_kernels_stay() {
    let node = Node::new(SimulatedOptions::default());
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    subject.kernel().await;
    agent.shutdown().await;
    assert!(node.manager.last().unwrap().leaving);
    assert_eq!(node.backend.running(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_and_kernels_are_measured() {
    let node = Node::new(SimulatedOptions::default());
    let agent = node.start().await;
    let subject = node.under_test(Arc::clone(&agent) as _);
    let kernel = subject.kernel().await;
    subject.query(kernel, "print(1)").await;
    let report = subject.report(kernel, |kernel| kernel.stats.is_some()).await;
    let stats = report.stats.unwrap();
    assert_eq!(stats["mem"]["current"], "16777216");
    assert_eq!(stats["cpu_util"]["unit_hint"], "percent");
    let live =
        node.manager.report(|report| report.live_stat["node"]["mem"]["pct"].is_string()).await.live_stat;
    assert!(live["devices"]["cpu_util"].as_object().is_some_and(|cores| !cores.is_empty()), "{live}");
}
