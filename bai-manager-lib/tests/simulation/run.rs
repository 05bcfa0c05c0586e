//! One run: in this process, or in one of its own.

use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bai_core::status::ClusterMode;
use bai_core::{ResourceSlots, Session, SessionStatus};
use bai_manager_lib::Manager;
use futures_util::future::join_all;
use tokio::time::sleep;

use crate::clients::{self, ask};
use crate::cluster::Cluster;
use crate::scenario::Scenario;
use crate::{faults, verdict};

/// The argument that says that this process is for one run.
pub(crate) const CHILD: &str = "--run";
/// Futures of unoptimised builds are large.
const STACK: usize = 64 << 20;
/// How often the cluster is emptied until everybody has had a turn.
const TURNS: usize = 40;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) seed: u64,
    pub(crate) agents: Option<usize>,
    pub(crate) trace: bool,
}

/// How a run went.
pub(crate) struct Outcome {
    pub(crate) good: bool,
    pub(crate) story: String,
}

impl Order {
    /// Runs it in a process of its own.
    pub(crate) fn run(self) -> Outcome {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.arg(CHILD).arg("--seed").arg(self.seed.to_string());
        if let Some(agents) = self.agents {
            command.arg("--agents").arg(agents.to_string());
        }
        if self.trace {
            command.arg("--trace");
        }
        let output = command.stdin(Stdio::null()).output().expect("this program can be run");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Outcome { good: output.status.success(), story: text(output.stdout) + &text(output.stderr) }
    }
}

/// The number after a flag.
pub(crate) fn number(arguments: &[String], flag: &str) -> Option<u64> {
    let place = arguments.iter().position(|argument| argument == flag)?;
    arguments.get(place + 1)?.parse().ok()
}

/// Runs one seed here, and tells the story on standard output.
pub(crate) fn child(arguments: &[String]) -> ExitCode {
    let seed = number(arguments, "--seed").unwrap_or(1);
    let agents = number(arguments, "--agents").and_then(|agents| usize::try_from(agents).ok());
    let trace = arguments.iter().any(|argument| argument == "--trace");
    let log = arguments.iter().any(|argument| argument == "--log");
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || {
        #[cfg(target_os = "linux")]
        crate::entropy::seed(seed);
        if log {
            tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).without_time().init();
        }
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime can be made");
        runtime.block_on(play(Scenario::of(seed, agents)))
    });
    let Ok(cluster) = thread.expect("a thread can be made").join() else { return ExitCode::FAILURE };
    let violations = cluster.trace.violations();
    for line in if trace { cluster.trace.lines() } else { violations.clone() } {
        println!("{line}");
    }
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Trouble, peace, and the end of all sessions.
async fn play(scenario: Scenario) -> Arc<Cluster> {
    let cluster = Cluster::new(scenario).await;
    join_all(cluster.names().iter().map(|name| cluster.start(name))).await;
    while cluster.any().is_none_or(|seat| seat.manager.agents().list().len() < cluster.nodes.len()) {
        sleep(Duration::from_millis(100)).await;
    }
    let customers = tokio::spawn(clients::run(cluster.clone()));
    faults::run(&cluster).await;
    customers.await.expect("no customer panics");
    let settled = verdict::settle(&cluster, "after the trouble").await;
    cluster.store.ledger().expect_peace();
    // Where there is room for everybody, nobody waits for a turn.
    if settled && (cluster.scenario.is_large() || give_turns(&cluster).await) {
        end_all(&cluster).await;
    }
    cluster
}

/// Ends what runs, again and again, until everybody who can have a turn has had one.
async fn give_turns(cluster: &Arc<Cluster>) -> bool {
    for _ in 0..TURNS {
        let waiting = of_status(cluster, |status| status == SessionStatus::Pending);
        end(cluster, SessionStatus::is_running).await;
        if !verdict::settle(cluster, "after a turn").await {
            return false;
        }
        let sessions = cluster.store.ledger().sessions();
        let pending = sessions.iter().filter(|session| session.status == SessionStatus::Pending);
        if pending.clone().all(|session| is_impossible(cluster, &sessions, session)) {
            return true;
        }
        let still: Vec<_> = pending.map(|session| session.name.clone()).collect();
        if still == waiting {
            cluster.trace.blame(format_args!("nobody of {still:?} gets a turn"));
            return false;
        }
    }
    cluster.trace.blame("some never get a turn");
    false
}

/// Whether no agent could ever take the session, or one that it waits for.
fn is_impossible(cluster: &Cluster, sessions: &[Arc<Session>], session: &Session) -> bool {
    let capacity = cluster.of_group(&session.resource_group, &cluster.capacity);
    let fits = |slots: &ResourceSlots| capacity.values().any(|capacity| slots.fits_in(capacity));
    let room = match session.cluster_mode {
        ClusterMode::SingleNode => fits(&session.requested()),
        ClusterMode::MultiNode => session.kernels.iter().all(|kernel| fits(&kernel.requested)),
    };
    let waits_for =
        |other: &&Arc<Session>| session.spec.dependencies.contains(&other.id) && !other.status.is_dead();
    !room || sessions.iter().filter(waits_for).any(|other| is_impossible(cluster, sessions, other))
}

async fn end_all(cluster: &Arc<Cluster>) {
    // What was about to start when others made room could not be ended.
    for _ in 0..2 {
        end(cluster, |status| !status.is_dead()).await;
        if !verdict::settle(cluster, "after the end").await {
            return;
        }
    }
    for name in of_status(cluster, |status| !status.is_dead()) {
        cluster.trace.blame(format_args!("{name} is still there"));
    }
    for (agent, free) in cluster.store.ledger().free() {
        if cluster.capacity.get(&agent) != Some(&free) {
            cluster.trace.blame(format_args!("something is still held on {agent}"));
        }
    }
}

/// Living sessions in such a status, by name.
fn of_status(cluster: &Cluster, wanted: impl Fn(SessionStatus) -> bool) -> Vec<String> {
    let sessions = cluster.store.ledger().sessions().into_iter();
    sessions.filter(|session| wanted(session.status)).map(|session| session.name.clone()).collect()
}

async fn end(cluster: &Arc<Cluster>, wanted: impl Fn(SessionStatus) -> bool) {
    let sessions = cluster.store.ledger().sessions();
    let ends = sessions.iter().filter(|session| wanted(session.status)).map(|session| async move {
        let owner =
            |scope: &&bai_manager_lib::Scope| scope.owner.keypair.access_key == session.owner.access_key;
        let Some(scope) = cluster.users.iter().find(owner) else { return };
        let destroy = |manager: Manager| {
            let (scope, id) = (scope.clone(), session.id.to_string());
            async move { manager.sessions().destroy(&scope, &id, false, false).await.map(|_| ()) }
        };
        if let Some(Err(error)) = ask(cluster, destroy).await {
            cluster.trace.say(format_args!("{} is not ended: {error}", session.name));
        }
    });
    join_all(ends).await;
}
