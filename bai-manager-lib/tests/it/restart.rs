//! A manager that dies at any stage is continued by the next one on the same stores.

use bai_core::SessionStatus;
use bai_core::port::SessionStore;

use crate::world::{Manners, World, batch, cores, small};

/// Kills the manager when a session of one core has reached `stage` under `manners`, and starts another.
async fn interrupted_at(stage: SessionStatus, manners: Manners) -> (World, bai_core::SessionId) {
    let world = World::new(&[4]).await;
    world.agents[0].behave(manners);
    let session = world.create(cores("survivor", 1)).await.unwrap();
    world.reaches(session.id, stage).await;
    world.kill_manager();
    world.agents[0].behave(Manners::default());
    world.revive_manager().await;
    (world, session.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_preparing() {
    let manners = Manners { never_starts: true, ..Manners::default() };
    let (world, id) = interrupted_at(SessionStatus::Preparing, manners).await;
    world.reaches(id, SessionStatus::Running).await;
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_agent_was_told() {
    let (world, id) =
        interrupted_at(SessionStatus::Preparing, Manners { hangs: true, ..Manners::default() }).await;
    world.reaches(id, SessionStatus::Running).await;
    assert_eq!(world.agents[0].kernel_count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_running() {
    let (world, id) = interrupted_at(SessionStatus::Running, Manners::default()).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let session = world.stored(id).await;
    assert_eq!((session.status, session.main().generation), (SessionStatus::Running, 1));
    world.manager().sessions().destroy(&world.scope, "survivor", false, false).await.unwrap();
    world.reaches(id, SessionStatus::Terminated).await;
    world.until("the kernel is forgotten", |world| world.agents[0].kernel_count() == 0).await;
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_pending() {
    let world = World::new(&[4]).await;
    let blocker = world.create(cores("blocker", 4)).await.unwrap();
    world.reaches(blocker.id, SessionStatus::Running).await;
    let waiting = world.create(cores("waiting", 1)).await.unwrap();
    world.kill_manager();
    world.revive_manager().await;
    assert_eq!(world.stored(waiting.id).await.status, SessionStatus::Pending);
    world.manager().sessions().destroy(&world.scope, "blocker", false, false).await.unwrap();
    world.reaches(waiting.id, SessionStatus::Running).await;
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_terminating() {
    let world = World::new(&[4]).await;
    let session = world.create(small("ending")).await.unwrap();
    world.agents[0].behave(Manners { hangs: true, ..Manners::default() });
    world.manager().sessions().destroy(&world.scope, "ending", false, false).await.unwrap();
    assert_eq!(world.stored(session.id).await.status, SessionStatus::Terminating);
    world.kill_manager();
    world.agents[0].behave(Manners::default());
    world.revive_manager().await;
    world.reaches(session.id, SessionStatus::Terminated).await;
    world.until("the kernel is forgotten", |world| world.agents[0].kernel_count() == 0).await;
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_end_that_nobody_saw() {
    let world = World::new(&[4]).await;
    world.agents[0].behave(Manners { endless_batch: true, ..Manners::default() });
    let interactive = world.create(small("unseen")).await.unwrap();
    let running = world.create(batch("unseen-batch", "true")).await.unwrap();
    world.kill_manager();
    world.agents[0].die(interactive.main().id, 9, false);
    world.agents[0].die(running.main().id, 9, false);
    world.revive_manager().await;
    let ended = world.reaches(interactive.id, SessionStatus::Terminated).await;
    assert_eq!((ended.status_info.as_deref(), ended.main().exit_code), (Some("self-terminated"), Some(9)));
    let ended = world.reaches(running.id, SessionStatus::Terminated).await;
    assert_eq!(ended.result, bai_core::status::SessionResult::Failure);
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_published_is_published_by_the_next_one() {
    let world = World::new(&[4]).await;
    let session = world.create(small("spoken")).await.unwrap();
    // A manager that died between commit and publication leaves this behind.
    let mut changed = world.stored(session.id).await;
    changed.status_data.insert("note".into(), 1.into());
    let event = bai_core::port::store::NewEvent {
        name: "session_started".into(),
        kernel: None,
        reason: String::new(),
        exit_code: None,
    };
    let change =
        bai_core::port::store::SessionChange { session: changed, events: vec![event], guard_capacity: false };
    world.kill_manager();
    world.store.commit(vec![change]).await.unwrap().remove(0).unwrap();
    assert!(!world.store.unpublished(10).await.unwrap().is_empty());
    world.revive_manager().await;
    for _ in 0..1200 {
        if world.store.unpublished(10).await.unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("left-over events are not published");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_leaves_no_task_and_no_commit_behind() {
    let world = World::new(&[4]).await;
    let manager = world.manager();
    let creating: Vec<_> = (0..20)
        .map(|i| {
            let (manager, scope) = (manager.clone(), world.scope.clone());
            tokio::spawn(
                async move { manager.sessions().create(&scope, cores(&format!("late-{i}"), 1)).await },
            )
        })
        .collect();
    manager.shutdown().await;
    for create in creating {
        // Either it is stored, or the caller knows that it is not.
        if let Ok(outcome) = create.await.unwrap() {
            world.stored(outcome.session.id).await;
        }
    }
    let error = world.create(cores("too-late", 1)).await.unwrap_err();
    assert!(error.kind().is_retryable());
}
