//! How much may wait (spec scheduler.md, sections 7 and 11).

use bai_core::ErrorKind;
use bai_core::error::code;
use bai_manager_lib::{Manager, Scope};

use crate::chaos::shared_world;
use crate::world::{World, cores, quick};

#[tokio::test(flavor = "multi_thread")]
async fn so_many_may_wait_and_no_more_on_every_manager() {
    let world = shared_world(&[1]).await;
    let directory = world.backends.identities.directory().await.unwrap();
    let mut policy = directory.policies["default"].clone();
    assert_eq!(policy.max_pending_session_count, Some(1_000), "there is a limit unless somebody lifts it");
    policy.max_pending_session_count = Some(3);
    policy.max_priority = Some(20);
    world.backends.identities.put_policy(&policy).await.unwrap();
    let key = &world.scope.owner.keypair.access_key;
    let scope = Scope::own(world.manager().identities().credential(key.as_str()).await.unwrap().unwrap());
    let mut options = quick();
    options.id = "second".into();
    let second = Manager::start(world.backends.clone(), world.dialer.clone(), options).await.unwrap();

    let mut urgent = cores("urgent", 2);
    urgent.priority = Some(21);
    let error = second.sessions().create(&scope, urgent).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), (code::PRIORITY_TOO_HIGH, ErrorKind::QuotaExceeded));

    // None of them fits: all wait. Of many at once exactly three are taken.
    let names: Vec<_> = (0..20).map(|number| format!("waiter-{number}")).collect();
    let creates = names.iter().map(|name| {
        let (manager, scope) = (world.manager(), &scope);
        async move { manager.sessions().create(scope, cores(name, 2)).await }
    });
    let (taken, refused): (Vec<_>, Vec<_>) =
        futures_util::future::join_all(creates).await.into_iter().partition(Result::is_ok);
    assert_eq!((taken.len(), refused.len()), (3, 17));
    for refusal in refused {
        let error = refusal.unwrap_err();
        assert_eq!((error.code(), error.kind()), (code::TOO_MUCH_WAITS, ErrorKind::QuotaExceeded));
        assert_eq!(error.message(), "You cannot have more than 3 waiting sessions");
    }
    // The manager that does not plan has heard of them, and refuses as well.
    let first = taken[0].as_ref().unwrap().session.clone();
    for session in taken.iter().map(|outcome| &outcome.as_ref().unwrap().session) {
        second.sessions().resolve(&scope, &session.name, false).await.unwrap();
    }
    let error = second.sessions().create(&scope, cores("late", 2)).await.unwrap_err();
    assert_eq!(error.code(), code::TOO_MUCH_WAITS);
    // One that was asked for again by name is not a new one, and one that leaves makes room.
    assert!(!world.manager().sessions().create(&scope, cores(&first.name, 2)).await.unwrap().created);
    world.manager().sessions().destroy(&scope, &first.name, false, false).await.unwrap();
    world.manager().sessions().create(&scope, cores("next", 2)).await.unwrap();
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_may_ask_for_so_much_together() {
    let world = World::new(&[1]).await;
    let directory = world.backends.identities.directory().await.unwrap();
    let mut policy = directory.policies["default"].clone();
    policy.max_pending_session_resource_slots = Some([("cpu".to_owned(), "5".to_owned())].into());
    world.backends.identities.put_policy(&policy).await.unwrap();
    let key = &world.scope.owner.keypair.access_key;
    let scope = Scope::own(world.manager().identities().credential(key.as_str()).await.unwrap().unwrap());
    let sessions = world.manager().sessions().clone();
    sessions.create(&scope, cores("pair", 2)).await.unwrap();
    sessions.create(&scope, cores("triple", 3)).await.unwrap();
    let error = sessions.create(&scope, cores("four", 4)).await.unwrap_err();
    assert_eq!(error.code(), code::TOO_MUCH_WAITS);
    assert_eq!(error.message(), "Waiting sessions cannot ask for more than 5 of cpu together");
    sessions.destroy(&scope, "pair", false, false).await.unwrap();
    sessions.create(&scope, cores("pair-again", 2)).await.unwrap();
}
