//! Sessions through the whole manager with every change in the database: how many per second come from the request to
//! `RUNNING`, and how long one takes to be placed. SQLite in a file, and with the feature
//! `postgres` also PostgreSQL where `BAI_TEST_POSTGRES_URL` names a server.
#![allow(missing_docs)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bai_benches::nodes::Nodes;
use bai_benches::{failed, header, median_ms, print};
use bai_core::memory::{MemoryCounter, MemoryEvents, MemoryLease};
use bai_core::port::store::{SessionEvent, SessionQuery};
use bai_core::{Error, ErrorKind, Result, Secret, SessionId, SessionStatus, SystemClock};
use bai_manager_lib::identity::Bootstrap;
use bai_manager_lib::session::CreateSession;
use bai_manager_lib::{Backends, Manager, ManagerOptions, Scope};
use bai_store::{Options, Store};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::broadcast::{self, error::RecvError};

#[global_allocator]
static ALLOCATOR: bai_benches::Allocator = bai_benches::Allocator;

const NODES: usize = 1_000;
const CORES: u64 = 32;
const SESSIONS: usize = 30_000;
/// Requests under way at a time.
const CALLERS: usize = 512;
const SINGLES: usize = 300;

#[tokio::main]
async fn main() -> Result<()> {
    header();
    let dir = tempfile::TempDir::new().map_err(failed)?;
    let store = Store::open_sqlite(dir.path().join("bai.db"), Options::new([1; 32])).await?;
    figures("SQLite", store).await?;
    #[cfg(feature = "postgres")]
    postgres().await?;
    Ok(())
}

/// The same in a schema of its own, if there is a server.
#[cfg(feature = "postgres")]
async fn postgres() -> Result<()> {
    let Ok(server) = std::env::var("BAI_TEST_POSTGRES_URL") else { return Ok(()) };
    let schema = format!("bai_bench_{}", std::process::id());
    run(&server, &format!("CREATE SCHEMA {schema}")).await?;
    let separator = if server.contains('?') { '&' } else { '?' };
    let url = format!("{server}{separator}options[search_path]={schema}");
    let done = match Store::connect_postgres(&url, Options::new([1; 32])).await {
        Ok(store) => figures("PostgreSQL", store).await,
        Err(error) => Err(error),
    };
    run(&server, &format!("DROP SCHEMA {schema} CASCADE")).await?;
    done
}

#[cfg(feature = "postgres")]
async fn run(url: &str, statement: &str) -> Result<()> {
    use sqlx::Connection;
    let broken = |cause| Error::new(ErrorKind::Unavailable, "the database refuses").source(cause);
    let mut connection = sqlx::PgConnection::connect(url).await.map_err(broken)?;
    sqlx::Executor::execute(&mut connection, sqlx::raw_sql(sqlx::AssertSqlSafe(statement)))
        .await
        .map_err(broken)?;
    connection.close().await.map_err(broken)
}

async fn figures(database: &str, store: Store) -> Result<()> {
    let nodes = Nodes::new(NODES, CORES);
    let mut options = ManagerOptions::default();
    options.agent_lost_after = Duration::from_mins(10);
    let manager = Manager::start(backends(store.clone()), nodes.clone(), options).await?;
    let scope = administrator(&manager, &store).await?;
    let reports = nodes.join(&manager).await?;
    while !manager.is_leader() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let placed = singles(&manager, &scope).await?;
    let name = format!("create to SCHEDULED, {NODES} idle agents, {database}, p50");
    print(&name, median_ms(&placed), "ms", None, Some(2.0), false);
    if let Some(late) = placed.get(placed.len() * 99 / 100) {
        let name = format!("create to SCHEDULED, {NODES} idle agents, {database}, p99");
        print(&name, late.as_secs_f64() * 1e3, "ms", None, None, false);
    }
    let time = burst(&manager, &scope).await?;
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rate = SESSIONS as f64 / time.as_secs_f64();
    let name = format!("{SESSIONS} sessions, request to RUNNING, {database}");
    print(&name, rate, "sessions/s", None, Some(3_000.0), true);
    drop(reports);
    manager.shutdown().await;
    store.close().await;
    Ok(())
}

fn backends(store: Store) -> Backends {
    let store = Arc::new(store);
    Backends {
        sessions: store.clone(),
        identities: store.clone(),
        agents: store.clone(),
        images: store.clone(),
        logs: store.clone(),
        config: store,
        events: Arc::new(MemoryEvents::new()),
        lease: Arc::new(MemoryLease::new()),
        counter: Arc::new(MemoryCounter::new()),
        clock: Arc::new(SystemClock),
        secret: [7; 32].into(),
    }
}

/// The first user, whose policy lets all sessions of the figure wait at once.
async fn administrator(manager: &Manager, store: &Store) -> Result<Scope> {
    use bai_core::port::IdentityStore;
    let first = Bootstrap {
        email: "admin@example.com".into(),
        password: Secret::new("not used".into()),
        access_key: None,
        secret_key: None,
    };
    let mut credential = manager.identities().bootstrap(first).await?;
    credential.policy.max_pending_session_count = None;
    store.put_policy(&credential.policy).await?;
    manager.identities().invalidate();
    Ok(Scope::own(Arc::new(credential)))
}

fn request(name: String) -> CreateSession {
    let mut request = CreateSession::new(name, "python");
    request.architecture = "x86_64".into();
    request.enqueue_only = true;
    request
}

/// Times from the request to the event that says that the session is placed; one after another, and each is ended again.
async fn singles(manager: &Manager, scope: &Scope) -> Result<Vec<Duration>> {
    let mut all = Vec::with_capacity(SINGLES);
    for number in 0..SINGLES {
        let mut events = manager.subscribe_sessions();
        let name = format!("single-{number}");
        let begin = Instant::now();
        let session = manager.sessions().create(scope, request(name.clone())).await?.session;
        until(&mut events, session.id, "session_scheduled").await?;
        all.push(begin.elapsed());
        until(&mut events, session.id, "session_started").await?;
        manager.sessions().destroy(scope, &name, false, false).await?;
    }
    all.sort_unstable();
    Ok(all)
}

async fn until(
    events: &mut broadcast::Receiver<Arc<SessionEvent>>,
    session: SessionId,
    name: &str,
) -> Result<()> {
    loop {
        match events.recv().await {
            Ok(event) if event.session == session && event.event.name == name => return Ok(()),
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => {
                return Err(Error::new(ErrorKind::Unavailable, "the manager has ended"));
            }
        }
    }
}

/// Time from the first request to the moment at which all sessions run.
async fn burst(manager: &Manager, scope: &Scope) -> Result<Duration> {
    let mut events = manager.subscribe_sessions();
    let begin = Instant::now();
    let started = tokio::spawn(async move {
        let mut seen = HashMap::<String, usize>::new();
        while seen.get("session_started").is_none_or(|count| *count < SESSIONS) {
            let Ok(event) = events.recv().await else { break };
            *seen.entry(event.event.name.clone()).or_default() += 1;
        }
    });
    // A task each, as the gateway has for its requests.
    let creates = (0..SESSIONS).map(|number| {
        let (manager, scope) = (manager.clone(), scope.clone());
        let create = async move {
            manager.sessions().create(&scope, request(format!("session-{number}"))).await.map(drop)
        };
        async { tokio::spawn(create).await.map_err(|cause| failed(cause.into()))? }
    });
    stream::iter(creates).buffer_unordered(CALLERS).try_for_each(|()| async { Ok(()) }).await?;
    eprint_time("all enqueued", begin);
    // Whether or not all events were seen, the records decide.
    _ = started.await;
    while running(manager).await? < SESSIONS as u64 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(begin.elapsed())
}

async fn running(manager: &Manager) -> Result<u64> {
    let statuses = vec![SessionStatus::Running];
    let query = SessionQuery { statuses, limit: Some(0), ..SessionQuery::default() };
    Ok(manager.sessions().find(&query).await?.total)
}

#[allow(clippy::print_stderr)]
fn eprint_time(what: &str, since: Instant) {
    eprintln!("{what} after {:.1} s", since.elapsed().as_secs_f64());
}
