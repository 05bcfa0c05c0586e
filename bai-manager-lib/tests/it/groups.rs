//! Several resource groups: what an owner uses in one counts in all of them.

use std::sync::Arc;
use std::time::Duration;

use bai_core::{Session, SessionId, SessionStatus};
use bai_manager_lib::{Manager, Scope};
use bai_testkit::fixture;

use crate::chaos::shared_world;
use crate::world::{World, cores, quick};

const TOO_MANY: &str = "You cannot run more than 1 concurrent sessions";

/// An agent in each of two groups, and an owner who may have one session at a time.
async fn limited() -> (World, Scope) {
    let mut world = shared_world(&[8]).await;
    let identities = &world.backends.identities;
    identities.put_resource_group(&fixture::resource_group("blue")).await.unwrap();
    let mut policy = identities.directory().await.unwrap().policies["default"].clone();
    policy.max_concurrent_sessions = 1;
    identities.put_policy(&policy).await.unwrap();
    let key = &world.scope.owner.keypair.access_key;
    let scope = Scope::own(world.manager().identities().credential(key.as_str()).await.unwrap().unwrap());
    world.add_agent("i-blue", 8);
    *world.agents[1].resource_group.lock() = "blue".into();
    let is_blue = |world: &World| {
        world.manager().agents().get(&"i-blue".into()).is_some_and(|agent| agent.resource_group == "blue")
    };
    world.until("the other group has its agent", is_blue).await;
    (world, scope)
}

async fn create(manager: &Manager, scope: &Scope, name: &str, group: &str) -> Arc<Session> {
    let mut request = cores(name, 1);
    request.resource_group = Some(group.into());
    manager.sessions().create(scope, request).await.unwrap().session
}

async fn waits_for_the_limit(world: &World, id: SessionId) {
    let is_told = |session: &Session| {
        session.status == SessionStatus::Pending
            && session.status_data.get("scheduler").is_some_and(|scheduler| scheduler["msg"] == TOO_MANY)
    };
    world.until_stored(id, is_told).await;
}

async fn end(world: &World, scope: &Scope, name: &str) {
    world.manager().sessions().destroy(scope, name, false, false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_in_all_groups_together() {
    let (world, scope) = limited().await;
    let first = create(&world.manager(), &scope, "first", "default").await;
    world.reaches(first.id, SessionStatus::Running).await;
    let second = create(&world.manager(), &scope, "second", "blue").await;
    waits_for_the_limit(&world, second.id).await;
    let ended = std::time::Instant::now();
    end(&world, &scope, "first").await;
    world.reaches(second.id, SessionStatus::Running).await;
    assert!(ended.elapsed() < Duration::from_millis(900), "{:?}", ended.elapsed());

    let third = create(&world.manager(), &scope, "third", "default").await;
    waits_for_the_limit(&world, third.id).await;
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_in_two_groups_as_many_run_as_may() {
    let (world, scope) = limited().await;
    let names: Vec<_> = (0..10).map(|number| format!("many-{number}")).collect();
    let manager = world.manager();
    let creates = names.iter().zip(["default", "blue"].iter().cycle()).map(|(name, group)| {
        let (manager, scope) = (&manager, &scope);
        async move { create(manager, scope, name, group).await.id }
    });
    let ids = futures_util::future::join_all(creates).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut running = 0;
    for id in ids {
        running += u32::from(world.stored(id).await.status != SessionStatus::Pending);
    }
    assert_eq!(running, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_begins_to_plan_knows_what_is_used_in_groups_without_a_queue() {
    let (world, scope) = limited().await;
    let first = create(&world.manager(), &scope, "first", "default").await;
    world.reaches(first.id, SessionStatus::Running).await;
    world.kill_manager();
    world.revive_manager().await;
    let second = create(&world.manager(), &scope, "second", "blue").await;
    waits_for_the_limit(&world, second.id).await;
    end(&world, &scope, "first").await;
    world.reaches(second.id, SessionStatus::Running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_does_not_plan_explains_with_all_groups() {
    let (world, scope) = limited().await;
    let mut options = quick();
    options.id = "second".into();
    let other = Manager::start(world.backends.clone(), world.dialer.clone(), options).await.unwrap();
    assert!(!other.is_leader());
    let first = create(&world.manager(), &scope, "first", "default").await;
    world.reaches(first.id, SessionStatus::Running).await;
    let second = create(&world.manager(), &scope, "second", "blue").await;
    waits_for_the_limit(&world, second.id).await;
    let (_, waiting) = other.sessions().explain(&scope, "second").await.unwrap();
    assert_eq!(waiting.unwrap().explanation.sentence(), TOO_MANY);
    other.shutdown().await;
}
