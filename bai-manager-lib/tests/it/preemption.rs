//! Room that others make for a session is kept for it, whichever manager plans by then.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bai_core::memory::MemoryStore;
use bai_core::port::SessionStore;
use bai_core::port::store::{Committed, Page, SessionChange, SessionEvent, SessionQuery, StoreCapability};
use bai_core::session::KernelExit;
use bai_core::{AccessKey, Error, ErrorKind, Result, Session, SessionId, SessionStatus, Timestamp, UserId};
use bai_manager_lib::Scope;
use bai_manager_lib::session::CreateSession;
use bai_testkit::fixture;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::world::{Manners, World, cores, quick};

type Refusal = fn(&Session) -> bool;

/// A store that does not take some changes.
#[derive(Debug)]
struct Picky {
    store: MemoryStore,
    refuses: Mutex<Option<Refusal>>,
}

#[async_trait]
impl SessionStore for Picky {
    fn capability(&self) -> StoreCapability {
        self.store.capability()
    }

    async fn insert(&self, new: Vec<SessionChange>) -> Result<Vec<Result<Committed>>> {
        self.store.insert(new).await
    }

    async fn commit(&self, changes: Vec<SessionChange>) -> Result<Vec<Result<Committed>>> {
        let refusal = *self.refuses.lock();
        let is_refused = |change: &SessionChange| refusal.is_some_and(|refuses| refuses(&change.session));
        let refused: Vec<_> = changes.iter().map(is_refused).collect();
        let wanted = changes.into_iter().filter(|change| !is_refused(change)).collect();
        let mut done = self.store.commit(wanted).await?.into_iter();
        let away = || Err(Error::new(ErrorKind::Unavailable, "the store is away"));
        Ok(refused.into_iter().map(|refused| if refused { away() } else { done.next().unwrap() }).collect())
    }

    async fn get(&self, id: SessionId) -> Result<Option<Session>> {
        self.store.get(id).await
    }

    async fn versions(&self) -> Result<Vec<(SessionId, i64)>> {
        self.store.versions().await
    }

    async fn find(&self, query: &SessionQuery) -> Result<Page<Session>> {
        self.store.find(query).await
    }

    async fn history(&self, id: SessionId) -> Result<Vec<SessionEvent>> {
        self.store.history(id).await
    }

    async fn unpublished(&self, limit: u32) -> Result<Vec<SessionEvent>> {
        self.store.unpublished(limit).await
    }

    async fn mark_published(&self, seqs: &[i64]) -> Result<()> {
        self.store.mark_published(seqs).await
    }

    async fn purge(&self, before: Timestamp, limit: u32) -> Result<u64> {
        self.store.purge(before, limit).await
    }
}

/// Where the last one comes first, and may push out others of its user.
async fn picky_world(cores: &[u64]) -> (World, Arc<Picky>) {
    let store = MemoryStore::new();
    let picky = Arc::new(Picky { store: store.clone(), refuses: Mutex::default() });
    let mut options = quick();
    options.terminating_timeout = Duration::from_mins(1);
    let world = World::on(store, picky.clone(), cores, options).await;
    let directory = world.backends.identities.directory().await.unwrap();
    let mut group = directory.resource_groups["default"].clone();
    group.scheduler = "lifo".into();
    group.scheduler_opts.insert("preemption".into(), json!({ "enabled": true }));
    world.backends.identities.put_resource_group(&group).await.unwrap();
    (world, picky)
}

fn urgent(name: &str) -> CreateSession {
    let mut request = cores(name, 2);
    request.priority = Some(50);
    request
}

fn claim(session: &Session) -> Option<&Value> {
    session.status_data.get("preemption")?.get("claim")
}

fn is_pushed_out(session: &Session) -> bool {
    session.status == SessionStatus::Terminating && session.status_info.as_deref() == Some("preempted")
}

/// A second user of the project.
async fn neighbour(world: &World) -> Scope {
    let identities = &world.backends.identities;
    identities.put_user(&fixture::user(2)).await.unwrap();
    identities.put_keypair(&fixture::keypair(2)).await.unwrap();
    let directory = identities.directory().await.unwrap();
    let (project, members) = directory.projects[0].clone();
    let members: Vec<UserId> = members.into_iter().chain([fixture::user_id(2)]).collect();
    identities.put_project(&project, &members).await.unwrap();
    Scope::own(Arc::new(identities.credential(&AccessKey::new("AKIA2")).await.unwrap().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_over_ends_the_victims_that_are_left_for_the_one_that_claimed_their_room() {
    let (world, picky) = picky_world(&[2]).await;
    let victim = world.create(cores("victim", 2)).await.unwrap();
    world.reaches(victim.id, SessionStatus::Running).await;
    *picky.refuses.lock() = Some(is_pushed_out);
    let first = world.create(urgent("first")).await.unwrap();
    world.until_stored(first.id, |session| claim(session).is_some()).await;
    let competitor = world.create(urgent("competitor")).await.unwrap();
    world.until_stored(competitor.id, |session| session.status_info.is_some()).await;
    world.kill_manager();
    let claimed = world.stored(first.id).await;
    let expected = json!([victim.id]);
    assert_eq!(claim(&claimed).unwrap()["victims"], expected);
    assert_eq!(claim(&claimed).unwrap()["agents"], json!(["i-0"]));
    assert!(claimed.status_data.contains_key("scheduler"), "what old clients read is there as well");
    assert_eq!(world.stored(victim.id).await.status, SessionStatus::Running);

    *picky.refuses.lock() = None;
    world.revive_manager().await;
    let ended = world.reaches(victim.id, SessionStatus::Terminated).await;
    assert_eq!(ended.status_info.as_deref(), Some("preempted"));
    let placed = world.reaches(first.id, SessionStatus::Running).await;
    assert!(!placed.status_data.contains_key("preemption"), "the claim is gone");
    let waiting = world.stored(competitor.id).await;
    assert_eq!((waiting.status, claim(&waiting)), (SessionStatus::Pending, None));
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn room_that_is_free_by_the_time_somebody_takes_over_is_not_given_to_others() {
    let (world, _) = picky_world(&[2, 2]).await;
    let scope = neighbour(&world).await;
    let mut running = Vec::new();
    for name in ["one-runs", "other-runs"] {
        let session = world.create(cores(name, 2)).await.unwrap();
        running.push(world.reaches(session.id, SessionStatus::Running).await);
    }
    let stubborn = Manners { ignores_destroy: true, ..Manners::default() };
    world.agents.iter().for_each(|agent| agent.behave(stubborn.clone()));
    let first = world.create(urgent("first")).await.unwrap();
    world.until_stored(first.id, |session| claim(session).is_some()).await;
    let victim: SessionId =
        serde_json::from_value(claim(&world.stored(first.id).await).unwrap()["victims"][0].clone()).unwrap();
    let mut victim = world.reaches(victim, SessionStatus::Terminating).await;
    // It may not push out anybody, but comes before the one that may.
    let request = urgent("competitor");
    let competitor = world.manager().sessions().create(&scope, request).await.unwrap().session;
    world.until_stored(competitor.id, |session| session.status_info.is_some()).await;
    world.kill_manager();

    // The victim comes to its end while nobody plans.
    let kernel = victim.main().id;
    let exit = KernelExit { code: Some(137), reason: "preempted".into(), oom: false };
    victim.kernel_ended(kernel, &exit, world.backends.clock.now()).unwrap();
    let change = SessionChange { session: victim.clone(), events: Vec::new(), guard_capacity: false };
    world.store.commit(vec![change]).await.unwrap().remove(0).unwrap();
    world.agents.iter().for_each(|agent| agent.behave(Manners::default()));
    let agent = world.agents.iter().find(|agent| Some(&agent.id) == victim.main().agent.as_ref());
    agent.unwrap().die(kernel, 137, false);
    world.revive_manager().await;

    let placed = world.reaches(first.id, SessionStatus::Running).await;
    assert_eq!(placed.main().agent, victim.main().agent);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.stored(competitor.id).await.status, SessionStatus::Pending);
    let spared = running.iter().find(|session| session.id != victim.id).unwrap();
    assert_eq!(world.stored(spared.id).await.status, SessionStatus::Running, "nobody else has to go");
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_ended_for_a_claim_that_is_not_recorded() {
    let (world, picky) = picky_world(&[2]).await;
    let victim = world.create(cores("victim", 2)).await.unwrap();
    world.reaches(victim.id, SessionStatus::Running).await;
    *picky.refuses.lock() = Some(|session| claim(session).is_some());
    let first = world.create(urgent("first")).await.unwrap();
    world.until_stored(first.id, |session| session.status_info.is_some()).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(world.stored(victim.id).await.status, SessionStatus::Running);
    // Its claim is void: when it leaves, nothing is kept for anybody.
    world.manager().sessions().destroy(&world.scope, "first", false, false).await.unwrap();
    *picky.refuses.lock() = None;
    let second = world.create(urgent("second")).await.unwrap();
    world.reaches(second.id, SessionStatus::Running).await;
    world.check_books().await;
}
