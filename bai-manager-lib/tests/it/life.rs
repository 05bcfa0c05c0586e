//! The ordinary life of sessions.

use std::collections::HashMap;

use bai_core::execution::{BatchOptions, ExecuteMode, ExecuteRequest, RunStatus};
use bai_core::port::cluster::ClusterSpec;
use bai_core::port::{LogStore, SessionStore};
use bai_core::status::{ClusterMode, SessionResult, SessionStatus};
use bai_core::{Kernel, KernelStatus, Session};
use futures_util::{StreamExt, stream};

use crate::world::{Manners, World, batch, small};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_created_run_and_destroyed() {
    let world = World::new(&[4]).await;
    let manager = world.manager();
    let mut events = manager.subscribe_sessions();

    let session = world.create(small("happy")).await.unwrap();
    assert_eq!(session.status, SessionStatus::Running);
    assert!(session.main().container_id.is_some());
    assert_eq!(session.main().kernel_host.as_deref(), Some("127.0.0.1"));

    let request = ExecuteRequest {
        run_id: None,
        mode: ExecuteMode::Query,
        code: "1".into(),
        batch: BatchOptions::default(),
        flush_timeout_ms: 100,
    };
    let reply = manager.sessions().execute(&world.scope, "happy", request).await.unwrap();
    assert_eq!((reply.status, reply.exit_code), (RunStatus::Finished, Some(0)));
    assert_eq!(manager.sessions().queries_executed(session.id), 1);
    assert_eq!(manager.sessions().list_files(&world.scope, "happy", ".").await.unwrap(), []);
    let report = manager.sessions().last_report(session.main()).unwrap();
    assert!(report.stats.as_ref().unwrap().contains_key("mem"));

    let outcomes = manager.sessions().destroy(&world.scope, "happy", false, false).await.unwrap();
    assert_eq!((outcomes.len(), outcomes[0].status), (1, "terminated"));
    assert!(outcomes[0].stats.as_ref().unwrap().get("mem").is_some());
    let session = world.reaches(session.id, SessionStatus::Terminated).await;
    assert_eq!(session.status_info.as_deref(), Some("user-requested"));
    assert_eq!(session.main().exit_code, Some(137));
    let log = format!("log of {}", session.main().id);
    assert_eq!(world.store.log(session.main().id).await.unwrap().unwrap(), log.as_bytes());
    assert_eq!(manager.sessions().logs(&world.scope, "happy").await.unwrap(), log.as_bytes());
    world.until("the agent has forgotten the kernel", |world| world.agents[0].kernel_count() == 0).await;
    world.check_books().await;

    let names: Vec<_> =
        std::iter::from_fn(|| events.try_recv().ok()).map(|event| event.event.name.clone()).collect();
    let expected = [
        "session_enqueued",
        "session_scheduled",
        "kernel_preparing",
        "session_started",
        "kernel_started",
        "session_terminating",
        "kernel_terminating",
        "session_terminated",
        "kernel_terminated",
    ];
    assert_eq!(names, expected);
    let history = manager.sessions().history(session.id).await.unwrap();
    assert_eq!(history.iter().map(|event| event.event.name.as_str()).collect::<Vec<_>>(), expected);
    world.manager().shutdown().await;
    assert!(world.store.unpublished(100).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_session_come_in_the_order_of_its_changes() {
    const SESSIONS: usize = 800;
    let world = World::new(&[16; 8]).await;
    let mut events = world.manager().subscribe_sessions();
    let lives = (0..SESSIONS).map(async |number| {
        let name = format!("brief-{number}");
        let session = world.create(small(&name)).await.unwrap();
        world.manager().sessions().destroy(&world.scope, &name, false, false).await.unwrap();
        world.reaches(session.id, SessionStatus::Terminated).await;
    });
    stream::iter(lives).buffer_unordered(8).collect::<()>().await;

    let mut last = HashMap::new();
    for event in std::iter::from_fn(|| events.try_recv().ok()) {
        let before = last.insert(event.session, event.seq);
        assert!(before < Some(event.seq), "{event:?} came after {before:?}");
    }
    assert_eq!(last.len(), SESSIONS);
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_sessions_end_by_themselves_with_a_result() {
    let world = World::new(&[4]).await;
    for (name, command, result, reason, code) in [
        ("works", "true", SessionResult::Success, "task-finished", 0),
        ("fails", "false", SessionResult::Failure, "task-failed", 3),
    ] {
        let session = world.create(batch(name, command)).await.unwrap();
        let session = world.reaches(session.id, SessionStatus::Terminated).await;
        assert_eq!(session.result, result);
        assert_eq!(session.status_info.as_deref(), Some(reason));
        assert_eq!(session.status_data["batch"]["exit_code"], code);
        let history = world.manager().sessions().history(session.id).await.unwrap();
        let event = if code == 0 { "session_success" } else { "session_failure" };
        let ended = history.iter().find(|known| known.event.name == event).unwrap();
        assert_eq!(ended.event.exit_code, Some(code));
    }
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kernels_of_a_cluster_know_each_other() {
    let world = World::new(&[4, 4]).await;
    let mut request = small("cluster");
    request.cluster_size = 3;
    request.cluster_mode = ClusterMode::MultiNode;
    request.environ.insert("MINE".into(), "1".into());
    request.environ.insert("BACKENDAI_CLUSTER_SIZE".into(), "99".into());
    let session = world.create(request).await.unwrap();
    assert_eq!(session.status, SessionStatus::Running);
    let names: Vec<_> = session.kernels.iter().map(|kernel| kernel.hostname.as_str()).collect();
    assert_eq!(names, ["main1", "sub1", "sub2"]);
    let sub = &session.kernels[2];
    let agent = world.agents.iter().find(|agent| Some(&agent.id) == sub.agent.as_ref()).unwrap();
    let environ = agent.spec(sub.id).unwrap().environ;
    for (name, value) in [
        ("MINE", "1"),
        ("BACKENDAI_CLUSTER_SIZE", "3"),
        ("BACKENDAI_CLUSTER_REPLICAS", "main:1,sub:2"),
        ("BACKENDAI_CLUSTER_HOSTS", "main1,sub1,sub2"),
        ("BACKENDAI_CLUSTER_ROLE", "sub"),
        ("BACKENDAI_CLUSTER_IDX", "2"),
        ("BACKENDAI_CLUSTER_LOCAL_RANK", "2"),
        ("BACKENDAI_CLUSTER_HOST", "sub2"),
        ("BACKENDAI_USER_NAME", "admin@example.com"),
        ("BACKENDAI_SERVICE_PORTS", "jupyter:http:8080"),
    ] {
        assert_eq!(environ.get(name).map(String::as_str), Some(value), "{name}");
    }
}

/// What the agents were told of the cluster that the session's kernels are.
fn told(world: &World, session: &Session) -> Vec<Option<ClusterSpec>> {
    let spec = |kernel: &Kernel| world.agents.iter().find_map(|agent| agent.spec(kernel.id));
    session.kernels.iter().map(|kernel| spec(kernel).unwrap().cluster).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn kernels_of_a_cluster_share_a_network_and_keys() {
    let world = World::new(&[8]).await;
    let cluster = |name: &str| {
        let mut request = small(name);
        request.cluster_size = 3;
        request
    };
    let session = world.create(cluster("first")).await.unwrap();
    let all = told(&world, &session);
    let one = all[0].clone().unwrap();
    assert!(all.iter().all(|told| *told == Some(one.clone())), "the same for all: {all:?}");
    assert_eq!(one.network.mode, ClusterMode::SingleNode);
    assert_eq!(one.network.name, format!("bai-singlenode-{}", session.id));
    assert_eq!(one.network.hosts, ["main1", "sub1", "sub2"]);

    let other = world.create(cluster("other")).await.unwrap();
    let other = told(&world, &other).remove(0).unwrap();
    assert_ne!(other.network.name, one.network.name);
    assert_ne!(other.ssh.public_key, one.ssh.public_key);
    let alone = world.create(small("alone")).await.unwrap();
    assert_eq!(told(&world, &alone), [None]);

    world.manager().sessions().restart(&world.scope, "first").await.unwrap();
    let session = world.stored(session.id).await;
    assert_eq!(session.main().generation, 2);
    assert_eq!(told(&world, &session), all, "kept by a restart");

    let history = world.manager().sessions().history(session.id).await.unwrap();
    let kept = format!("{}{history:?}", serde_json::to_string(&session).unwrap());
    for line in one.ssh.private_key.reveal().lines().filter(|line| !line.starts_with('-')) {
        assert!(!kept.contains(line), "the private key is nowhere stored");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_the_session_and_replaces_the_kernel() {
    let world = World::new(&[4]).await;
    let session = world.create(small("again")).await.unwrap();
    world.manager().sessions().restart(&world.scope, "again").await.unwrap();
    let session = world.stored(session.id).await;
    assert_eq!(session.status, SessionStatus::Running);
    assert_eq!(session.main().generation, 2);
    assert_eq!(world.agents[0].spec(session.main().id).unwrap().kernel.generation, 2);
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_batch_session_runs_its_command_again() {
    let world = World::new(&[4]).await;
    world.agents[0].behave(Manners { endless_batch: true, ..Manners::default() });
    let session = world.create(batch("twice", "true")).await.unwrap();
    world.until("the command runs", |world| world.agents[0].batch_starts() == 1).await;
    world.agents[0].behave(Manners::default());
    world.manager().sessions().restart(&world.scope, "twice").await.unwrap();
    let session = world.reaches(session.id, SessionStatus::Terminated).await;
    assert_eq!(session.result, SessionResult::Success);
    assert_eq!(session.main().generation, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_main_kernel_ends_the_session_and_that_of_another_degrades_it() {
    let world = World::new(&[8]).await;
    let mut request = small("family");
    request.cluster_size = 2;
    let session = world.create(request).await.unwrap();
    world.agents[0].die(session.kernels[1].id, 1, false);
    let degraded = world.reaches(session.id, SessionStatus::RunningDegraded).await;
    assert_eq!(degraded.kernels[1].status, KernelStatus::Terminated);
    assert_eq!(degraded.kernels[1].exit_code, Some(1));
    world.agents[0].die(session.main().id, 137, true);
    let ended = world.reaches(session.id, SessionStatus::Terminated).await;
    assert_eq!(ended.status_info.as_deref(), Some("out-of-memory"));
    assert_eq!(ended.status_data["kernel"]["oom"], true);
    assert!(ended.status_history.contains_key("TERMINATING"));
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renaming_needs_a_running_session_and_a_free_good_name() {
    let world = World::new(&[4]).await;
    let manager = world.manager();
    let first = world.create(small("first-name")).await.unwrap();
    world.create(small("taken")).await.unwrap();
    let rename = |name: &'static str| manager.sessions().rename(&world.scope, "first-name", name);
    assert_eq!(rename("no/good").await.unwrap_err().code().id(), "BAI-S008");
    assert_eq!(rename("taken").await.unwrap_err().kind(), bai_core::ErrorKind::AlreadyExists);
    rename("second-name").await.unwrap();
    assert!(manager.sessions().resolve(&world.scope, "first-name", true).await.is_err());
    assert_eq!(manager.sessions().resolve(&world.scope, "second-name", false).await.unwrap().id, first.id);
    manager.sessions().destroy(&world.scope, "second-name", false, false).await.unwrap();
    world.reaches(first.id, SessionStatus::Terminated).await;
    let error = manager.sessions().rename(&world.scope, "second-name", "third-name").await.unwrap_err();
    assert_eq!(error.code().id(), "BAI-S005");
}

/// Serves HTTP until `count` requests have come, and returns their bodies.
async fn receive(listener: tokio::net::TcpListener, count: usize) -> Vec<serde_json::Value> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut bodies = Vec::new();
    while bodies.len() < count {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        let mut buffer = [0; 4096];
        loop {
            let read = stream.read(&mut buffer).await.unwrap();
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
            if let Some((_, body)) = text.split_once("\r\n\r\n")
                && let Ok(body) = serde_json::from_str(body)
            {
                bodies.push(body);
                break;
            }
            assert!(read > 0, "the request is cut off: {text}");
        }
        let reply = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
        stream.write_all(reply.as_bytes()).await.unwrap();
    }
    bodies
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callback_url_is_told_about_the_session() {
    let world = World::new(&[4]).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut request = batch("calls-back", "true");
    request.callback_url = Some(format!("http://{}/hook", listener.local_addr().unwrap()));
    request.enqueue_only = true;
    let receiver = tokio::spawn(receive(listener, 7));
    let session = world.create(request).await.unwrap();
    let bodies = tokio::time::timeout(std::time::Duration::from_secs(10), receiver).await.unwrap().unwrap();
    let mut events: Vec<_> = bodies.iter().map(|body| body["event"].as_str().unwrap()).collect();
    events.sort_unstable();
    let expected = ["enqueued", "preparing", "scheduled", "started", "success", "terminated", "terminating"];
    assert_eq!(events, expected);
    for body in bodies {
        assert_eq!(body["type"], "session_lifecycle");
        assert_eq!(body["session_id"], session.id.to_string());
        assert!(body["when"].is_string());
    }
}
