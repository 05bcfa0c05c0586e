//! Stores that other managers write to, and stores that fail: whatever happens, the books are right in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bai_core::error::code;
use bai_core::memory::{MemoryEvents, MemoryLease, MemoryStore};
use bai_core::port::lease::Grant;
use bai_core::port::store::{Committed, Page, SessionChange, SessionEvent, SessionQuery, StoreCapability};
use bai_core::port::{Lease, SessionStore};
use bai_core::{Error, ErrorKind, Result, Session, SessionId, SessionStatus, Timestamp};
use bai_manager_lib::Manager;
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::world::{Manners, World, batch, cores, quick, small};

/// A store that is shared with other processes, or fails now and then: before or after it has done its work.
#[derive(Debug)]
struct Unreliable {
    store: MemoryStore,
    exclusive: bool,
    failing: AtomicBool,
    calls: AtomicU64,
    /// Refuses one placement of the session of this name, as if another manager had been faster.
    contested: Mutex<Option<&'static str>>,
    /// Names of the sessions whose placements were asked for, in this order.
    placements: Mutex<Vec<String>>,
}

impl Unreliable {
    fn new(store: &MemoryStore, exclusive: bool) -> Arc<Self> {
        Arc::new(Self {
            store: store.clone(),
            exclusive,
            failing: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            contested: Mutex::default(),
            placements: Mutex::default(),
        })
    }

    /// Which calls fail: every fifth before, every seventh after the work.
    fn luck(&self) -> (bool, bool) {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let failing = self.failing.load(Ordering::SeqCst);
        (failing && call.is_multiple_of(5), failing && call.is_multiple_of(7))
    }

    /// Takes the contested placement out of `changes`, and says where it was.
    fn contest(&self, changes: &mut Vec<SessionChange>) -> Option<usize> {
        let guarded = changes.iter().filter(|change| change.guard_capacity);
        self.placements.lock().extend(guarded.map(|change| change.session.name.clone()));
        let mut contested = self.contested.lock();
        let is_it = |change: &SessionChange| {
            change.guard_capacity && Some(change.session.name.as_str()) == *contested
        };
        let place = changes.iter().position(is_it)?;
        *contested = None;
        changes.remove(place);
        Some(place)
    }
}

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "the store is away")
}

#[async_trait]
impl SessionStore for Unreliable {
    fn capability(&self) -> StoreCapability {
        if self.exclusive { self.store.capability() } else { StoreCapability::default() }
    }

    async fn insert(&self, new: Vec<SessionChange>) -> Result<Vec<Result<Committed>>> {
        let (before, after) = self.luck();
        if before {
            return Err(down());
        }
        let done = self.store.insert(new).await;
        if after { Err(down()) } else { done }
    }

    async fn commit(&self, mut changes: Vec<SessionChange>) -> Result<Vec<Result<Committed>>> {
        let (before, after) = self.luck();
        if before {
            return Err(down());
        }
        let refused = self.contest(&mut changes);
        let mut done = self.store.commit(changes).await;
        if let (Some(place), Ok(results)) = (refused, &mut done) {
            results.insert(place, Err(Error::of(code::OVER_CAPACITY, "somebody else was faster")));
        }
        if after { Err(down()) } else { done }
    }

    async fn get(&self, id: SessionId) -> Result<Option<Session>> {
        if self.luck().0 { Err(down()) } else { self.store.get(id).await }
    }

    async fn versions(&self) -> Result<Vec<(SessionId, i64)>> {
        if self.luck().0 { Err(down()) } else { self.store.versions().await }
    }

    async fn find(&self, query: &SessionQuery) -> Result<Page<Session>> {
        if self.luck().0 { Err(down()) } else { self.store.find(query).await }
    }

    async fn history(&self, id: SessionId) -> Result<Vec<SessionEvent>> {
        self.store.history(id).await
    }

    async fn unpublished(&self, limit: u32) -> Result<Vec<SessionEvent>> {
        self.store.unpublished(limit).await
    }

    async fn mark_published(&self, seqs: &[i64]) -> Result<()> {
        if self.luck().0 { Err(down()) } else { self.store.mark_published(seqs).await }
    }

    async fn purge(&self, before: Timestamp, limit: u32) -> Result<u64> {
        self.store.purge(before, limit).await
    }
}

pub(crate) async fn shared_world(cores: &[u64]) -> World {
    let store = MemoryStore::new();
    let sessions = Unreliable::new(&store, false);
    World::on(store, sessions, cores, quick()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_managers_on_one_store_act_as_one() {
    let world = shared_world(&[8]).await;
    let mut options = quick();
    options.id = "second".into();
    let second = Manager::start(world.backends.clone(), world.dialer.clone(), options).await.unwrap();
    assert!(!second.is_leader());
    let mut events = second.subscribe_sessions();

    // Created at the second, planned by the first, seen by both.
    let created = second.sessions().create(&world.scope, small("shared")).await.unwrap();
    assert_eq!(created.session.status, SessionStatus::Running);
    let found = world.manager().sessions().resolve(&world.scope, "shared", false).await.unwrap();
    assert_eq!(found.status, SessionStatus::Running);
    let again = world.manager().sessions().create(&world.scope, small("shared")).await.unwrap();
    assert!(!again.created);

    second.sessions().destroy(&world.scope, "shared", false, false).await.unwrap();
    world.reaches(created.session.id, SessionStatus::Terminated).await;
    world.until("the agent has forgotten", |world| world.agents[0].kernel_count() == 0).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let names: Vec<_> =
        std::iter::from_fn(|| events.try_recv().ok()).map(|event| event.event.name.clone()).collect();
    for name in [
        "session_enqueued",
        "session_scheduled",
        "session_started",
        "session_terminating",
        "session_terminated",
    ] {
        assert_eq!(names.iter().filter(|known| *known == name).count(), 1, "{name} in {names:?}");
    }
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_manager_plans_when_the_first_is_gone() {
    let world = shared_world(&[8]).await;
    let mut options = quick();
    options.id = "second".into();
    let second = Manager::start(world.backends.clone(), world.dialer.clone(), options).await.unwrap();
    world.until("the first plans", |world| world.manager().is_leader()).await;
    let first = world.manager();
    world.replace_manager(second.clone());
    first.shutdown().await;
    for _ in 0..500 {
        if second.is_leader() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(second.is_leader());
    let session = second.sessions().create(&world.scope, cores("heir", 1)).await.unwrap().session;
    world.reaches(session.id, SessionStatus::Running).await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_keeps_managers_that_do_not_see_each_other_from_overbooking() {
    let world = shared_world(&[4]).await;
    // Its own lease: both believe that they plan.
    let mut backends = world.backends.clone();
    backends.lease = Arc::new(MemoryLease::new());
    let mut options = quick();
    options.id = "rival".into();
    let rival = Manager::start(backends, world.dialer.clone(), options).await.unwrap();
    for i in 0..12 {
        let manager = if i % 2 == 0 { world.manager() } else { rival.clone() };
        manager.sessions().create(&world.scope, cores(&format!("rival-{i}"), 1)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let all = world.store.find(&SessionQuery::default()).await.unwrap().items;
    let running = all.iter().filter(|session| session.status == SessionStatus::Running).count();
    assert_eq!(running, 4);
    rival.shutdown().await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_now_and_then_costs_time_only() {
    let store = MemoryStore::new();
    let sessions = Unreliable::new(&store, true);
    let world = World::on(store, sessions.clone(), &[16], quick()).await;
    sessions.failing.store(true, Ordering::SeqCst);
    let mut created = Vec::new();
    for i in 0..12 {
        // The caller tries again, as clients do; reuse makes that safe.
        for _ in 0..20 {
            match world.create(cores(&format!("bumpy-{i}"), 1)).await {
                Ok(session) => {
                    created.push(session.id);
                    break;
                }
                Err(error) => assert!(error.kind().is_retryable(), "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(created.len(), 12);
    for id in &created {
        world.reaches(*id, SessionStatus::Running).await;
    }
    for i in 0..12 {
        for _ in 0..20 {
            match world.manager().sessions().destroy(&world.scope, &format!("bumpy-{i}"), false, false).await
            {
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                _ => break,
            }
        }
    }
    for id in &created {
        world.reaches(*id, SessionStatus::Terminated).await;
    }
    sessions.failing.store(false, Ordering::SeqCst);
    world.until("the agent has forgotten everything", |world| world.agents[0].kernel_count() == 0).await;
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_race_costs_its_session_only_and_the_plan_agrees_with_the_records_afterwards() {
    let store = MemoryStore::new();
    let sessions = Unreliable::new(&store, false);
    let world = World::on(store, sessions.clone(), &[8], quick()).await;
    // All eight are placed by the same plan.
    world.manager().agents().set_schedulable(&["i-0".into()], false).await.unwrap();
    let mut created = Vec::new();
    for number in 0..8 {
        created.push(world.create(cores(&format!("racer-{number}"), 1)).await.unwrap().id);
    }
    *sessions.contested.lock() = Some("racer-3");
    world.manager().agents().set_schedulable(&["i-0".into()], true).await.unwrap();
    for id in &created {
        world.reaches(*id, SessionStatus::Running).await;
    }
    assert!(sessions.contested.lock().is_none(), "the race was lost");
    let placements = sessions.placements.lock().clone();
    for number in 0..8 {
        let name = format!("racer-{number}");
        let times = placements.iter().filter(|known| **known == name).count();
        assert_eq!(times, if number == 3 { 2 } else { 1 }, "{name} in {placements:?}");
    }

    // The agent is exactly full, and what becomes free is used.
    let ninth = world.create(cores("racer-8", 1)).await.unwrap();
    world.until_stored(ninth.id, |session| session.status_info.is_some()).await;
    let scheduler = &world.stored(ninth.id).await.status_data["scheduler"];
    assert_eq!(scheduler["msg"], "needs cpu 1; best agent has 0 free of 8");
    world.manager().sessions().destroy(&world.scope, "racer-3", false, false).await.unwrap();
    world.reaches(ninth.id, SessionStatus::Running).await;
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_lags_behind_ends_no_kernel_that_another_has_started() {
    let store = MemoryStore::new();
    let sessions = Unreliable::new(&store, false);
    let mut options = quick();
    // The first hears of the agent by its row only, which is not written that often.
    options.agent_lost_after = Duration::from_mins(1);
    let world = World::on(store, sessions, &[8], options.clone()).await;
    world.until("the first plans", |world| world.manager().is_leader()).await;
    // The second hears nothing of what the first does, and the agent reports to the second only.
    let first = world.manager();
    let mut backends = world.backends.clone();
    backends.events = Arc::new(MemoryEvents::new());
    options.id = "second".into();
    options.resync_interval = Duration::from_mins(10);
    let second = Manager::start(backends, world.dialer.clone(), options).await.unwrap();
    world.replace_manager(second.clone());

    let session = world.create(cores("contested", 1)).await.unwrap();
    let running = world.reaches(session.id, SessionStatus::Running).await;
    assert_eq!(running.main().generation, 1, "it was started once");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.stored(session.id).await.status, SessionStatus::Running);
    first.shutdown().await;
    second.shutdown().await;
}

/// Leases that are granted, and whose renewal is never answered.
#[derive(Debug)]
struct Mute(MemoryLease);

#[async_trait]
impl Lease for Mute {
    async fn try_acquire(&self, name: &str, holder: &str, ttl: Duration) -> Result<Option<Grant>> {
        self.0.try_acquire(name, holder, ttl).await
    }

    async fn renew(&self, _: &Grant) -> Result<()> {
        std::future::pending().await
    }

    async fn release(&self, grant: &Grant) -> Result<()> {
        self.0.release(grant).await
    }

    async fn holder(&self, name: &str) -> Result<Option<String>> {
        self.0.holder(name).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_whose_lease_is_never_renewed_stops_to_plan() {
    let world = shared_world(&[8]).await;
    let leases = MemoryLease::new();
    let mut backends = world.backends.clone();
    backends.lease = Arc::new(Mute(leases.clone()));
    let mut options = quick();
    options.id = "mute".into();
    options.lease_ttl = Duration::from_millis(300);
    let mute = Manager::start(backends, world.dialer.clone(), options).await.unwrap();
    world.until("it plans", |_| mute.is_leader()).await;
    world.until("it no longer plans", |_| !mute.is_leader()).await;
    mute.shutdown().await;
}

/// Something a test does to the cluster.
#[derive(Debug, Clone)]
enum Step {
    Create { name: u8, cpu: u8, batch: bool, size: u8 },
    Destroy { name: u8, forced: bool },
    Restart { name: u8 },
    Kill { agent: u8 },
    Behave { agent: u8, manners: u8 },
    ReplaceManager,
    Pause,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..6, 1_u8..4, any::<bool>(), 1_u8..3)
            .prop_map(|(name, cpu, batch, size)| Step::Create { name, cpu, batch, size }),
        4 => (0_u8..6, any::<bool>()).prop_map(|(name, forced)| Step::Destroy { name, forced }),
        1 => (0_u8..6).prop_map(|name| Step::Restart { name }),
        1 => (0_u8..2).prop_map(|agent| Step::Kill { agent }),
        2 => (0_u8..2, 0_u8..5).prop_map(|(agent, manners)| Step::Behave { agent, manners }),
        1 => Just(Step::ReplaceManager),
        3 => Just(Step::Pause),
    ]
}

fn manners(number: u8) -> Manners {
    match number {
        0 => Manners { fails_with: Some("BAI-K009"), ..Manners::default() },
        1 => Manners { refuses: Some(ErrorKind::Unavailable), ..Manners::default() },
        2 => Manners { hangs: true, ..Manners::default() },
        3 => Manners { lossy: true, ..Manners::default() },
        _ => Manners::default(),
    }
}

async fn apply(world: &World, step: &Step) {
    let sessions = world.manager().sessions().clone();
    match step {
        Step::Create { name, cpu, batch: is_batch, size } => {
            let name = format!("chaos-{name}");
            let mut request = if *is_batch { batch(&name, "true") } else { cores(&name, u64::from(*cpu)) };
            request.cluster_size = u32::from(*size);
            request.enqueue_only = true;
            // Refusals are part of the game: names are taken, and so on.
            _ = sessions.create(&world.scope, request).await;
        }
        Step::Destroy { name, forced } => {
            _ = sessions.destroy(&world.scope, &format!("chaos-{name}"), *forced, false).await;
        }
        Step::Restart { name } => {
            let (sessions, scope, name) = (sessions.clone(), world.scope.clone(), format!("chaos-{name}"));
            tokio::spawn(async move { sessions.restart(&scope, &name).await });
        }
        Step::Kill { agent } => world.agents[usize::from(*agent)].kill_any(),
        Step::Behave { agent, manners: number } => world.agents[usize::from(*agent)].behave(manners(*number)),
        Step::ReplaceManager => {
            world.kill_manager();
            world.revive_manager().await;
        }
        Step::Pause => tokio::time::sleep(Duration::from_millis(30)).await,
    }
}

async fn play(steps: Vec<Step>) {
    let world = World::new(&[4, 3]).await;
    for step in &steps {
        apply(&world, step).await;
        world.check_capacity().await;
    }
    // Peace returns: everything that lives can be ended, and nothing is left.
    world.agents.iter().for_each(|agent| agent.behave(Manners::default()));
    let living = world.store.find(&SessionQuery::default()).await.unwrap().items;
    for session in living.iter().filter(|session| !session.status.is_dead()) {
        for _ in 0..200 {
            let sessions = world.manager().sessions().clone();
            _ = sessions.destroy(&world.scope, &session.id.to_string(), false, false).await;
            if world.stored(session.id).await.status.is_dead() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(world.stored(session.id).await.status.is_dead(), "{:#?}", world.stored(session.id).await);
    }
    world
        .until("no kernel is left", |world| world.agents.iter().all(|agent| agent.kernel_count() == 0))
        .await;
    world.check_books().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn allocations_are_the_sum_of_living_kernels_whatever_happens(steps in prop::collection::vec(step(), 1..25)) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(play(steps));
    }
}
