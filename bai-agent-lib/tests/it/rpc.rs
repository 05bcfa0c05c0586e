//! The same suite with HTTP in both directions between manager and agent, and what only a network can do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bai_agent_lib::Agent;
use bai_agent_lib::backend::simulated::SimulatedOptions;
use bai_core::execution::ExecuteMode;
use bai_core::port::AgentApi;
use bai_core::port::agent::KernelRef;
use bai_core::{KernelId, Secret, error::code};
use bai_rpc::{RemoteAgent, RemoteManager, agent_router, manager_router, serve, serve_agent};
use bai_testkit::Subject;
use bai_testkit::agent_api::{AgentUnderTest, request};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{Node, options};

fn secret() -> Secret<String> {
    Secret::new("a secret".to_owned())
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Serves the agent; dropping the guard ends that.
async fn served(agent: Arc<dyn AgentApi>) -> (SocketAddr, DropGuard) {
    let (listener, addr) = listener().await;
    let stop = CancellationToken::new();
    tokio::spawn(serve_agent(agent, listener, secret(), stop.clone()));
    (addr, stop.drop_guard())
}

async fn fresh() -> Option<Subject<AgentUnderTest>> {
    let node = Node::new(SimulatedOptions::default());
    let (listener, addr) = listener().await;
    let stop = CancellationToken::new();
    let routes = manager_router(Arc::clone(&node.manager) as _, secret()).unwrap();
    tokio::spawn(serve(routes, listener, stop.clone()));
    let manager = RemoteManager::connect(&addr.to_string(), &secret()).unwrap();
    let builder =
        Agent::builder(options(node.dir.path())).simulated(&node.backend).manager(Arc::new(manager));
    let agent = Arc::new(builder.start().await.unwrap());
    let (addr, guard) = served(Arc::clone(&agent) as _).await;
    let remote = RemoteAgent::connect(&addr.to_string(), &secret()).unwrap();
    let subject = node.under_test(Arc::new(remote));
    Some(Subject::new(Arc::new(subject)).cleanup(async move {
        agent.shutdown().await;
        drop((node, guard, stop.drop_guard()));
    }))
}

bai_testkit::agent_api_conformance!(fresh);

fn nobody() -> KernelRef {
    KernelRef { id: KernelId::random(), generation: 1 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_secret_is_refused() {
    let node = Node::new(SimulatedOptions::default());
    let (addr, _guard) = served(node.start().await).await;
    for wrong in ["", "a secre", "a secret ", "another"] {
        let remote = RemoteAgent::connect(&addr.to_string(), &Secret::new(wrong.to_owned())).unwrap();
        assert_eq!(remote.forget(nobody()).await.unwrap_err().code(), code::UNAUTHORIZED, "{wrong:?}");
    }
    let agent: Arc<dyn AgentApi> = node.start().await;
    assert!(agent_router(agent, Secret::new(String::new())).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_away_is_unreachable_and_found_again() {
    let node = Node::new(SimulatedOptions::default());
    let agent = node.start().await;
    let (listener, addr) = listener().await;
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve_agent(Arc::clone(&agent) as _, listener, secret(), stop.clone()));
    let remote = RemoteAgent::connect(&addr.to_string(), &secret()).unwrap();
    remote.forget(nobody()).await.unwrap();
    stop.cancel();
    serving.await.unwrap().unwrap();
    let error = remote.forget(nobody()).await.unwrap_err();
    assert_eq!(error.code(), code::AGENT_UNREACHABLE);
    assert!(error.kind().is_retryable());
    let listener = TcpListener::bind(addr).await.unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve_agent(agent, listener, secret(), stop.clone()));
    remote.forget(nobody()).await.unwrap();
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_meets_the_deadline_and_garbage_is_refused() {
    let (listener, addr) = listener().await;
    let remote = RemoteAgent::connect(&addr.to_string(), &secret()).unwrap();
    let started = std::time::Instant::now();
    // The peer accepts and never says a word: an execute call gives up after its flush timeout and ten seconds.
    let silent = tokio::spawn(async move {
        let connection = listener.accept().await.unwrap();
        tokio::time::sleep(Duration::from_mins(1)).await;
        drop(connection);
    });
    let mut call = request(ExecuteMode::Query, None, "1");
    call.flush_timeout_ms = 100;
    let error = remote.execute(nobody(), call).await.unwrap_err();
    assert!(error.kind().is_retryable(), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(15));
    silent.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_share_a_connection() {
    let node = Node::new(SimulatedOptions::default());
    let agent = node.start().await;
    let (addr, _guard) = served(Arc::clone(&agent) as _).await;
    let remote = Arc::new(RemoteAgent::connect(&addr.to_string(), &secret()).unwrap());
    let subject = node.under_test(Arc::clone(&remote) as _);
    let kernel = subject.kernel().await;
    let mut calls = tokio::task::JoinSet::new();
    for i in 0..50 {
        let remote = Arc::clone(&remote);
        let mut call = request(ExecuteMode::Query, Some(&format!("r{i}")), &format!("print('{i}')"));
        call.flush_timeout_ms = 5000;
        calls.spawn(async move { remote.execute(kernel, call).await.unwrap() });
    }
    let replies = calls.join_all().await;
    assert!(replies.iter().all(|reply| reply.exit_code == Some(0)));
}
