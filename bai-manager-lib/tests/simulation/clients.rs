//! What people do with the cluster meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bai_core::status::{ClusterMode, SessionType};
use bai_core::{Result, Session, SessionId};
use bai_manager_lib::session::CreateSession;
use bai_manager_lib::{Manager, Scope};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::cluster::Cluster;

/// Longest time anybody waits for an answer.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often somebody asks again whose request failed.
const TRIES: usize = 8;

/// Has all sessions of the scenario created while things go wrong, and something done with most of them.
pub(crate) async fn run(cluster: Arc<Cluster>) {
    let millis = u64::try_from(cluster.scenario.trouble.as_millis()).unwrap_or(u64::MAX);
    let mut customers = JoinSet::new();
    for number in 0..cluster.scenario.sessions {
        customers.spawn(customer(cluster.clone(), number, cluster.chance.millis(0, millis * 9 / 10)));
    }
    customers.join_all().await;
}

/// Asks any manager, and another one when that does not work. `None` when nobody knows what came of it.
pub(crate) async fn ask<T, F>(cluster: &Cluster, request: impl Fn(Manager) -> F) -> Option<Result<T>>
where
    F: Future<Output = Result<T>>,
{
    let mut last = None;
    for _ in 0..TRIES {
        if let Some(seat) = cluster.any() {
            let answer = timeout(PATIENCE, seat.life.within(Box::pin(request(seat.manager.clone())))).await;
            last = answer.ok().flatten();
            match &last {
                Some(Err(error)) if error.kind().is_retryable() => {}
                Some(_) => return last,
                None => {}
            }
        }
        sleep(cluster.chance.millis(200, 5_000)).await;
    }
    last
}

/// One session, from its creation to whatever its owner does last.
async fn customer(cluster: Arc<Cluster>, number: usize, arrival: Duration) {
    sleep(arrival).await;
    let Some(scope) = cluster.chance.pick(&cluster.users).cloned() else { return };
    let name = format!("s-{number:04}");
    let request = wanted(&cluster, &name, &scope);
    let create = |manager: Manager| {
        let (scope, request) = (scope.clone(), request.clone());
        async move { manager.sessions().create(&scope, request).await }
    };
    match ask(&cluster, create).await {
        Some(Ok(outcome)) => {
            cluster.trace.say(format_args!("acknowledged {name} {}", outcome.session.id));
            cluster.acknowledged.lock().push(outcome.session.id);
        }
        Some(Err(error)) => cluster.trace.say(format_args!("{name} is refused: {error}")),
        None => cluster.trace.say(format_args!("{name} is in doubt")),
    }
    let longest = u64::try_from(cluster.scenario.trouble.as_millis() / 3).unwrap_or(u64::MAX);
    for _ in 0..cluster.chance.below(4) {
        sleep(cluster.chance.millis(100, longest)).await;
        act(&cluster, &scope, &name).await;
    }
}

fn wanted(cluster: &Cluster, name: &str, scope: &Scope) -> CreateSession {
    let chance = &cluster.chance;
    let mut request = CreateSession::new(name, "python");
    request.architecture = "x86_64".into();
    request.project = "project1".into();
    request.resource_group = chance.pick(cluster.scenario.groups).map(|group| (*group).to_owned());
    request.enqueue_only = chance.permille(700);
    request.max_wait = Duration::from_secs(30);
    // Now and then more than any agent has.
    let cores = if chance.permille(10) { 64 } else { 1 + chance.below(4) };
    request.resources = json!({ "cpu": cores, "mem": "1g" }).as_object().cloned();
    if chance.permille(150) {
        request.priority = Some(if chance.permille(500) { 20 } else { 5 });
    }
    if chance.permille(200) {
        request.cluster_size = 2 + u32::from(chance.permille(500));
        request.cluster_mode =
            if chance.permille(500) { ClusterMode::MultiNode } else { ClusterMode::SingleNode };
    }
    if chance.permille(400) {
        request.session_type = SessionType::Batch;
        request.startup_command = Some(if chance.permille(800) { "true" } else { "false" }.into());
        if chance.permille(300)
            && let Some(earlier) = earlier(cluster, scope)
        {
            request.dependencies.push(earlier.to_string());
        }
    }
    request
}

/// A batch session of the same owner.
fn earlier(cluster: &Cluster, scope: &Scope) -> Option<SessionId> {
    let mine = |session: &Arc<Session>| {
        session.owner.access_key == scope.owner.keypair.access_key
            && session.session_type == SessionType::Batch
            && !session.status.is_dead()
    };
    let earlier: Vec<_> =
        cluster.store.ledger().sessions().into_iter().filter(mine).map(|session| session.id).collect();
    cluster.chance.pick(&earlier).copied()
}

/// Something that its owner does to a session.
async fn act(cluster: &Cluster, scope: &Scope, name: &str) {
    let what = cluster.chance.below(10);
    let act = |manager: Manager| {
        let (scope, name) = (scope.clone(), name.to_owned());
        async move {
            let sessions = manager.sessions();
            match what {
                0..3 => sessions.destroy(&scope, &name, false, false).await.map(|_| "ended"),
                3 => sessions.destroy(&scope, &name, true, false).await.map(|_| "ended by force"),
                4..6 => sessions.restart(&scope, &name).await.map(|()| "restarted"),
                6 => sessions.explain(&scope, &name).await.map(|_| "explained"),
                7 => sessions.queue(&scope, None).await.map(|_| "listed"),
                _ => sessions.resolve(&scope, &name, false).await.map(|_| "found"),
            }
        }
    };
    let outcome = ask(cluster, act).await;
    cluster.trace.say(format_args!("asked about {name} ({what}): {}", told(outcome.as_ref())));
}

fn told(outcome: Option<&Result<&'static str>>) -> String {
    match outcome {
        Some(Ok(done)) => (*done).to_owned(),
        Some(Err(error)) => error.to_string(),
        None => "in doubt".to_owned(),
    }
}
