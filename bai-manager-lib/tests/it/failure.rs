//! Agents that fail, lie, hang or vanish. Nothing is ever stuck, and capacity is always given back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bai_core::port::ManagerApi;
use bai_core::{ErrorKind, SessionId, SessionStatus};

use crate::world::{Manners, World, batch, cores, quick, small};

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_is_tried_on_another_agent() {
    let world = World::new(&[8, 4]).await;
    // The emptier agent is chosen first.
    world.agents[0].behave(Manners { fails_with: Some("BAI-K009"), ..Manners::default() });
    let session = world.create(small("second-try")).await.unwrap();
    assert_eq!(session.status, SessionStatus::Running);
    assert_eq!(session.main().agent.as_ref(), Some(&world.agents[1].id));
    assert_eq!(session.main().generation, 2);
    assert_eq!(session.status_data["error"]["agent_id"], "i-0");
    world.until("the failed kernel is forgotten", |world| world.agents[0].kernel_count() == 0).await;
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_that_keep_failing_cancel_the_session() {
    let world = World::new(&[4, 4]).await;
    for agent in &world.agents {
        agent.behave(Manners { fails_with: Some("BAI-K009"), ..Manners::default() });
    }
    let session = world.create(small("no-luck")).await.unwrap();
    assert_eq!(session.status, SessionStatus::Cancelled);
    assert_eq!(session.status_info.as_deref(), Some("failed-to-start"));
    assert_eq!(session.main().generation, 3);
    let error = &session.status_data["error"];
    assert_eq!(
        (&error["src"], &error["name"], &error["repr"]),
        (&"agent".into(), &"BAI-K009".into(), &"no luck".into())
    );
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_cannot_succeed_anywhere_is_not_repeated() {
    let world = World::new(&[4, 4]).await;
    for agent in &world.agents {
        agent.behave(Manners { fails_with: Some("BAI-G001"), ..Manners::default() });
    }
    let session = world.create(small("hopeless")).await.unwrap();
    assert_eq!((session.status, session.main().generation), (SessionStatus::Cancelled, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_refuses_commands_is_avoided() {
    let world = World::new(&[8, 4]).await;
    world.agents[0].behave(Manners { refuses: Some(ErrorKind::Invalid), ..Manners::default() });
    let error = world.create(small("refused")).await.unwrap();
    assert_eq!(error.status, SessionStatus::Cancelled);
    world.agents[0].behave(Manners { refuses: Some(ErrorKind::NotFound), ..Manners::default() });
    let session = world.create(small("elsewhere")).await.unwrap();
    assert_eq!(session.status, SessionStatus::Running);
    assert_eq!(session.main().agent.as_ref(), Some(&world.agents[1].id));
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_waits_for_an_agent_that_cannot_be_reached() {
    let mut options = crate::world::quick();
    options.agent_lost_after = Duration::from_mins(1);
    options.preparing_timeout = Duration::from_mins(1);
    let world = World::with_options(&[1], options).await;
    world.agents[0].behave(Manners { away: true, silent: true, ..Manners::default() });
    let first = world.create(cores("first", 1)).await.unwrap();
    let second = world.create(cores("second", 1)).await.unwrap();
    world.reaches(first.id, SessionStatus::Preparing).await;
    let first = world.reaches(first.id, SessionStatus::Pending).await;
    for id in [first.id, second.id] {
        world
            .until_stored(id, |session| session.status_info.as_deref() == Some("no-available-instances"))
            .await;
    }
    // What is left of the first start is seen to once more.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let commands = world.agents[0].commands.load(std::sync::atomic::Ordering::SeqCst);
    // Several passes later the agent has been left alone, and nobody has lost a try.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(world.agents[0].commands.load(std::sync::atomic::Ordering::SeqCst), commands);
    assert_eq!(world.stored(second.id).await.main().generation, 0);
    assert_eq!(world.stored(first.id).await.main().generation, 1);
    world.agents[0].behave(Manners::default());
    world.reaches(first.id, SessionStatus::Running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_has_forgotten_is_told_again_at_once() {
    let world = World::new(&[4]).await;
    world.agents[0].behave(Manners { never_starts: true, ..Manners::default() });
    let session = world.create(cores("forgotten", 1)).await.unwrap();
    world.until("the agent has heard of it", |world| world.agents[0].kernel_count() == 1).await;
    world.agents[0].is_replaced();
    world.agents[0].behave(Manners::default());
    // Within the deadline of the start, so it is the same one.
    let session = world.reaches(session.id, SessionStatus::Running).await;
    assert_eq!(session.main().generation, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_agent_delays_only_its_own_kernels() {
    let world = World::new(&[8, 4]).await;
    world.agents[0].behave(Manners { hangs: true, ..Manners::default() });
    let slow = world.create(cores("slow", 8)).await.unwrap();
    world.reaches(slow.id, SessionStatus::Preparing).await;
    let started = std::time::Instant::now();
    let quick = world.create(small("quick")).await.unwrap();
    assert_eq!(quick.status, SessionStatus::Running);
    assert!(started.elapsed() < Duration::from_millis(400), "{:?}", started.elapsed());
    world.agents[0].behave(Manners::default());
    world.reaches(slow.id, SessionStatus::Running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preparation_without_end_is_tried_again_and_given_up() {
    let mut options = crate::world::quick();
    options.preparing_timeout = Duration::from_millis(300);
    options.start_attempts = 2;
    let world = World::with_options(&[4], options).await;
    world.agents[0].behave(Manners { never_starts: true, ..Manners::default() });
    let session = world.create(small("stuck")).await.unwrap();
    assert_eq!((session.status, session.main().generation), (SessionStatus::Cancelled, 2));
    assert_eq!(session.status_info.as_deref(), Some("failed-to-start"));
    world.until("the kernels are gone", |world| world.agents[0].kernel_count() == 0).await;
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_a_lost_agent_end_and_its_return_is_fenced() {
    let world = World::new(&[4]).await;
    let session = world.create(small("lost")).await.unwrap();
    let batch_session = world.create(batch("lost-batch", "true")).await.unwrap();
    world.reaches(batch_session.id, SessionStatus::Terminated).await;
    world.agents[0].behave(Manners { endless_batch: true, ..Manners::default() });
    let endless = world.create(batch("lost-endless", "true")).await.unwrap();
    world.agents[0].behave(Manners { silent: true, hangs: true, ..Manners::default() });
    let ended = world.reaches(session.id, SessionStatus::Terminated).await;
    assert_eq!(ended.status_info.as_deref(), Some("agent-lost"));
    let ended = world.reaches(endless.id, SessionStatus::Terminated).await;
    assert_eq!(ended.result, bai_core::status::SessionResult::Failure);
    let agent = world.manager().agents().get(&world.agents[0].id).unwrap();
    assert_eq!(agent.status, bai_core::port::store::AgentStatus::Lost);
    assert!(agent.lost_at.is_some());
    world.check_books().await;
    // It was only the network: what still runs there is ended.
    world.agents[0].behave(Manners::default());
    world.until("left-over kernels are gone", |world| world.agents[0].kernel_count() == 0).await;
    let back = world.create(small("after")).await.unwrap();
    assert_eq!(back.status, SessionStatus::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_lost_agent_starts_anew_where_the_group_wants_it() {
    let world = World::new(&[8, 4]).await;
    let directory = world.backends.identities.directory().await.unwrap();
    let mut group = directory.resource_groups["default"].clone();
    group.scheduler_opts.insert("reschedule_lost".into(), serde_json::json!(["batch"]));
    world.backends.identities.put_resource_group(&group).await.unwrap();
    world.manager().identities().invalidate();
    world.agents[0].behave(Manners { endless_batch: true, ..Manners::default() });
    let interactive = world.create(cores("interactive", 1)).await.unwrap();
    let session = world.create(batch("again", "true")).await.unwrap();
    let before = world.reaches(session.id, SessionStatus::Running).await;
    assert_eq!(before.main().agent.as_ref(), Some(&world.agents[0].id));
    world.agents[0].behave(Manners { silent: true, hangs: true, ..Manners::default() });
    let after = world.reaches(session.id, SessionStatus::Terminated).await;
    assert_eq!(after.result, bai_core::status::SessionResult::Success);
    assert_eq!(after.main().agent.as_ref(), Some(&world.agents[1].id));
    assert_eq!(after.main().generation, before.main().generation + 1);
    let ended = world.reaches(interactive.id, SessionStatus::Terminated).await;
    assert_eq!(ended.status_info.as_deref(), Some("agent-lost"));
    world.check_books().await;
    world.agents[0].behave(Manners::default());
    world.until("left-over kernels are gone", |world| world.agents[0].kernel_count() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_on_its_way_moves_from_a_lost_agent_to_another() {
    let world = World::new(&[8, 4]).await;
    world.agents[0].behave(Manners { never_starts: true, ..Manners::default() });
    let session = world.create(cores("moving", 1)).await.unwrap();
    world.reaches(session.id, SessionStatus::Preparing).await;
    world.agents[0].behave(Manners { silent: true, hangs: true, ..Manners::default() });
    let session = world.reaches(session.id, SessionStatus::Running).await;
    assert_eq!(session.main().agent.as_ref(), Some(&world.agents[1].id));
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_that_will_not_die_does_not_hold_its_session() {
    let world = World::new(&[4]).await;
    let session = world.create(small("immortal")).await.unwrap();
    world.agents[0].behave(Manners { ignores_destroy: true, ..Manners::default() });
    let started = std::time::Instant::now();
    world.manager().sessions().destroy(&world.scope, "immortal", false, false).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(world.stored(session.id).await.status, SessionStatus::Terminating);
    let ended = world.reaches(session.id, SessionStatus::Terminated).await;
    assert_eq!(ended.status_info.as_deref(), Some("user-requested"));
    world.check_books().await;
    assert_eq!(world.agents[0].kernel_count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_destroy_of_a_stuck_session_frees_everything_at_once() {
    let world = World::new(&[4]).await;
    world.agents[0].behave(Manners { hangs: true, ..Manners::default() });
    let session = world.create(cores("stuck", 4)).await.unwrap();
    world.reaches(session.id, SessionStatus::Preparing).await;
    let sessions = world.manager().sessions().clone();
    let error = sessions.destroy(&world.scope, "stuck", false, false).await.unwrap_err();
    assert_eq!(error.message(), "Cannot destroy sessions in scheduled/preparing/terminating/error status");
    sessions.destroy(&world.scope, "stuck", true, false).await.unwrap();
    let ended = world.stored(session.id).await;
    assert_eq!(
        (ended.status, ended.status_info.as_deref()),
        (SessionStatus::Terminated, Some("force-terminated"))
    );
    world.check_books().await;
    world.agents[0].behave(Manners::default());
    let next = world.create(cores("next", 4)).await.unwrap();
    world.reaches(next.id, SessionStatus::Running).await;
    world.until("only the next one runs", |world| world.agents[0].kernel_count() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_that_old_lists_leave_out_is_asked_for_once_and_goes_on() {
    let mut options = quick();
    options.agent_lost_after = Duration::from_mins(1);
    let world = World::with_options(&[4], options).await;
    let agent = &world.agents[0];
    let session = world.create(small("listed")).await.unwrap();
    assert_eq!(session.status, SessionStatus::Running);
    agent.behave(Manners { silent: true, ..Manners::default() });
    let old_list = || {
        let mut report = agent.report();
        report.kernels.clear();
        report
    };
    let begun = agent.commands.load(Ordering::SeqCst);
    // A last true list may still be under way.
    for _ in 0..500 {
        world.manager().report(old_list()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        if agent.commands.load(Ordering::SeqCst) > begun {
            break;
        }
    }
    assert!(agent.commands.load(Ordering::SeqCst) > begun, "the agent is asked");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.stored(session.id).await.status, SessionStatus::Running);
    // Asked once, believed: what else is to be done is done.
    let asked = agent.commands.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(agent.commands.load(Ordering::SeqCst), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_that_vanished_ends_its_session() {
    let world = World::new(&[4]).await;
    let session = world.create(small("vanishing")).await.unwrap();
    world.agents[0].vanish(session.main().id);
    let ended = world.reaches(session.id, SessionStatus::Terminated).await;
    assert_eq!(ended.status_info.as_deref(), Some("container-not-found"));
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kernels_nobody_knows_are_reported_and_those_of_dead_sessions_removed() {
    let world = World::new(&[4]).await;
    let stranger = world.agents[0].plant(SessionId::random());
    world.until("the stranger is reported", |world| *world.agents[0].unknown.lock() == [stranger]).await;
    let dead = world.create(small("dead")).await.unwrap();
    world.manager().sessions().destroy(&world.scope, "dead", false, false).await.unwrap();
    world.reaches(dead.id, SessionStatus::Terminated).await;
    world.agents[0].plant(dead.id);
    world.until("only the stranger is left", |world| world.agents[0].kernel_count() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_reports_cost_time_only() {
    let world = World::new(&[16]).await;
    world.agents[0].behave(Manners { lossy: true, ..Manners::default() });
    for i in 0..5 {
        let session = world.create(small(&format!("lossy-{i}"))).await.unwrap();
        assert_eq!(session.status, SessionStatus::Running);
        world.manager().sessions().destroy(&world.scope, &session.name, false, false).await.unwrap();
        world.reaches(session.id, SessionStatus::Terminated).await;
    }
    world.until("everything is forgotten", |world| world.agents[0].kernel_count() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_reports_are_ignored() {
    let world = World::new(&[4]).await;
    let before = world.agents[0].report();
    let session = world.create(small("newer")).await.unwrap();
    for _ in 0..3 {
        bai_core::port::ManagerApi::report(&world.manager(), before.clone()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.stored(session.id).await.status, SessionStatus::Running);
}
