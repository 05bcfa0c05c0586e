//! Sessions of several kernels with networks of their own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bai_agent_lib::{Agent, AgentOptions};
use bai_core::port::agent::{KernelRef, KernelStage};
use bai_core::status::ClusterMode;
use bai_krunner_bin::install;
use bai_testkit::agent_api::{AgentUnderTest, FakeManager};
use bollard::query_parameters::{ListNetworksOptions, RemoveContainerOptions};

use super::kernel::{Host, PYTHON, raw};
use crate::cluster::{Cluster, connect, listen, said};

async fn start(host: &Host, manager: &Arc<FakeManager>) -> Arc<Agent> {
    let mut options = AgentOptions::new(host.agent.as_str(), &host.dir);
    options.runner = install(std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    (options.cpu, options.mem, options.pin_cpus) = (Some(16), Some(16 << 30), false);
    options.stop_grace = Duration::from_millis(500);
    options.sync_interval = Duration::from_millis(500);
    let backend = Arc::new(host.backend().await);
    let builder = Agent::builder(options).backend(backend).manager(Arc::clone(manager) as _);
    Arc::new(builder.start().await.unwrap())
}

/// An agent with a manager of its own.
pub(super) async fn agent(host: &Host) -> AgentUnderTest {
    let manager = Arc::default();
    let api = start(host, &manager).await;
    let images = manager.images().await;
    let python = images.into_iter().find(|image| image.name == PYTHON).unwrap();
    AgentUnderTest { api, manager, image: python.name, image_labels: python.labels }
}

/// The networks of sessions that an agent has made, by name.
pub(super) async fn networks(host: &Host) -> Vec<String> {
    let labels = vec![format!("ai.backend.owner={}", host.agent), "ai.backend.cluster-network=1".to_owned()];
    let filters = Some(HashMap::from([("label".to_owned(), labels)]));
    let listed = raw(&host.engine).list_networks(Some(ListNetworksOptions { filters })).await.unwrap();
    listed.into_iter().filter_map(|network| network.name).collect()
}

pub(super) async fn until_no_networks(host: &Host) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while let left @ [_, ..] = &*networks(host).await {
        assert!(Instant::now() < give_up, "{left:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A kernel's packets to the address come to nothing.
pub(super) async fn hears_nothing(subject: &AgentUnderTest, kernel: KernelRef, host: &str, port: &str) {
    let heard = connect(subject, kernel, host, port).await;
    assert!(["TimeoutError", "OSError"].contains(&heard.as_str()), "{heard}");
}

/// Address of a kernel in its network.
pub(super) async fn address(subject: &AgentUnderTest, kernel: KernelRef, name: &str) -> String {
    said(subject, kernel, &format!("import socket; print(socket.gethostbyname('{name}'))")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kernels_of_a_session_have_a_network_of_their_own() {
    let Some(host) = Host::new() else { return };
    let subject = agent(&host).await;
    let cluster = Cluster::new(&subject, ClusterMode::SingleNode);
    cluster.start(&subject).await;
    assert_eq!(networks(&host).await, [cluster.network()]);
    cluster.is_connected(&subject).await;
    cluster.shares_keys(&subject).await;

    let other = Cluster::new(&subject, ClusterMode::SingleNode);
    other.start(&subject).await;
    let alone = subject.kernel().await;
    assert_eq!(networks(&host).await.len(), 2);
    let port = listen(&subject, cluster.kernel(1)).await;
    let sub1 = address(&subject, cluster.kernel(0), "sub1").await;
    assert_eq!(connect(&subject, cluster.kernel(0), &sub1, &port).await, "hello");
    assert_ne!(address(&subject, other.kernel(0), "sub1").await, sub1, "names are each session's own");
    for stranger in [other.kernel(0), alone] {
        hears_nothing(&subject, stranger, &sub1, &port).await;
    }

    // The end of one leaves the others in the network.
    subject.end(cluster.kernel(2)).await;
    assert_eq!(connect(&subject, cluster.kernel(0), "sub1", &port).await, "hello");
    for kernel in [cluster.kernel(0), cluster.kernel(1), alone] {
        subject.end(kernel).await;
    }
    assert_eq!(networks(&host).await, [other.network()], "it is gone with the last kernel");
    other.end(&subject).await;
    assert_eq!(networks(&host).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_names_network_and_keys() {
    let Some(host) = Host::new() else { return };
    let subject = agent(&host).await;
    let cluster = Cluster::new(&subject, ClusterMode::SingleNode);
    cluster.start(&subject).await;
    let again = cluster.restarted();
    again.start(&subject).await;
    assert_eq!(networks(&host).await, [cluster.network()]);
    again.is_connected(&subject).await;
    again.shares_keys(&subject).await;
    again.end(&subject).await;
    assert_eq!(networks(&host).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kernels_that_end_together_leave_no_network() {
    let Some(host) = Host::new() else { return };
    let subject = agent(&host).await;
    let cluster = Cluster::new(&subject, ClusterMode::SingleNode);
    cluster.start(&subject).await;
    futures_util::future::join_all((0..3).map(|index| subject.end(cluster.kernel(index)))).await;
    assert_eq!(networks(&host).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_leaves_no_network() {
    let Some(host) = Host::new() else { return };
    let subject = agent(&host).await;
    let cluster = Cluster::new(&subject, ClusterMode::SingleNode);
    let mut main = cluster.specs[0].clone();
    main.slots = [("cpu", 1_u64), ("mem", 4096)].into_iter().collect();
    subject.api.create_kernels(vec![main]).await.unwrap();
    let report =
        subject.report(cluster.kernel(0), |report| matches!(report.stage, KernelStage::Failed { .. })).await;
    let KernelStage::Failed { message, .. } = report.stage else { unreachable!() };
    assert!(message.to_lowercase().contains("memory"), "it comes from the engine: {message}");
    assert_eq!(networks(&host).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_outlive_the_agent_as_long_as_their_kernels() {
    let Some(host) = Host::new() else { return };
    let subject = agent(&host).await;
    let (kept, lost) =
        (Cluster::new(&subject, ClusterMode::SingleNode), Cluster::new(&subject, ClusterMode::SingleNode));
    kept.start(&subject).await;
    lost.start(&subject).await;
    let port = listen(&subject, kept.kernel(1)).await;
    // A crash: what ends from now on ends without an agent.
    drop(subject);
    let force = RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
    for spec in &lost.specs {
        let name = format!("kernel.{}.{}", spec.kernel.id, spec.kernel.generation);
        raw(&host.engine).remove_container(&name, Some(force.clone())).await.unwrap();
    }
    assert_eq!(networks(&host).await.len(), 2);

    let subject = agent(&host).await;
    assert_eq!(networks(&host).await, [kept.network()]);
    subject.running(kept.kernel(0)).await;
    assert_eq!(connect(&subject, kept.kernel(0), "sub1", &port).await, "hello");
    kept.end(&subject).await;
    assert_eq!(networks(&host).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_cannot_be_removed_blocks_no_end() {
    let Some(host) = Host::new() else { return };
    let subject = agent(&host).await;
    let cluster = Cluster::new(&subject, ClusterMode::SingleNode);
    cluster.start(&subject).await;
    // A container of somebody else in the network.
    let body = bollard::models::ContainerCreateBody {
        image: Some(PYTHON.into()),
        cmd: Some(vec!["sleep".into(), "600".into()]),
        labels: Some(HashMap::from([("ai.backend.owner".to_owned(), host.agent.clone())])),
        host_config: Some(bollard::models::HostConfig {
            network_mode: Some(cluster.network().to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let engine = raw(&host.engine);
    let guest = engine
        .create_container(None::<bollard::query_parameters::CreateContainerOptions>, body)
        .await
        .unwrap()
        .id;
    engine.start_container(&guest, None::<bollard::query_parameters::StartContainerOptions>).await.unwrap();
    cluster.end(&subject).await;
    assert_eq!(networks(&host).await, [cluster.network()]);
    let force = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
    engine.remove_container(&guest, Some(force)).await.unwrap();
    until_no_networks(&host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_swarm_sessions_across_agents_are_refused() {
    let Some(host) = Host::new() else { return };
    let subject = agent(&host).await;
    let main = Cluster::new(&subject, ClusterMode::MultiNode).specs.remove(0);
    let kernel = main.kernel;
    subject.api.create_kernels(vec![main]).await.unwrap();
    let report = subject.report(kernel, |report| matches!(report.stage, KernelStage::Failed { .. })).await;
    let KernelStage::Failed { code, message } = report.stage else { unreachable!() };
    assert_eq!(code, bai_core::error::code::UNSUPPORTED.id());
    assert!(message.contains("in no swarm"), "{message}");
}
