//! The queue: who waits, why, and until when.

use std::time::Duration;

use bai_core::SessionStatus;
use chrono::TimeDelta;

use crate::world::{Manners, World, batch, cores, small};

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_told_why() {
    let world = World::new(&[2]).await;
    let session = world.create(cores("greedy", 1000)).await.unwrap();
    let mut seen = None;
    for _ in 0..500 {
        let stored = world.stored(session.id).await;
        if stored.status_info.is_some() {
            seen = Some(stored);
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let session = seen.expect("a reason is recorded");
    assert_eq!(session.status, SessionStatus::Pending);
    assert_eq!(session.status_info.as_deref(), Some("no-available-instances"));
    let scheduler = &session.status_data["scheduler"];
    assert_eq!(scheduler["msg"], "needs cpu 1000; best agent has 2 free of 2");
    assert_eq!(scheduler["retries"], 1);
    assert_eq!(scheduler["passed_predicates"][0]["name"], "reserved_time");
    assert!(scheduler["last_try"].is_string());
    // Waiting longer for the same reason writes nothing.
    let version = session.version;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(world.stored(session.id).await.version, version);
    // And the small ones behind it go on.
    assert_eq!(world.create(small("modest")).await.unwrap().status, SessionStatus::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn capacity_that_becomes_free_is_used_at_once() {
    let world = World::new(&[2]).await;
    let first = world.create(cores("first", 2)).await.unwrap();
    world.reaches(first.id, SessionStatus::Running).await;
    let second = world.create(cores("second", 2)).await.unwrap();
    world.manager().sessions().destroy(&world.scope, "first", false, false).await.unwrap();
    let freed = std::time::Instant::now();
    world.reaches(second.id, SessionStatus::Running).await;
    assert!(freed.elapsed() < Duration::from_millis(900), "{:?}", freed.elapsed());
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_agent_is_used_at_once() {
    let mut world = World::new(&[1]).await;
    let session = world.create(cores("waits-for-room", 4)).await.unwrap();
    world.add_agent("i-new", 8);
    let session = world.reaches(session.id, SessionStatus::Running).await;
    assert_eq!(session.main().agent, Some("i-new".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_are_not_schedulable_get_nothing_new() {
    let world = World::new(&[4]).await;
    let agents = world.manager().agents().clone();
    agents.set_schedulable(&["i-0".into()], false).await.unwrap();
    assert!(agents.set_schedulable(&["i-0".into(), "i-9".into()], true).await.is_err());
    let session = world.create(cores("cordoned", 1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.stored(session.id).await.status, SessionStatus::Pending);
    agents.set_schedulable(&["i-0".into()], true).await.unwrap();
    world.reaches(session.id, SessionStatus::Running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dependencies_are_waited_for_and_their_failure_is_told_at_once() {
    let world = World::new(&[4]).await;
    world.agents[0].behave(Manners { endless_batch: true, ..Manners::default() });
    let good = world.create(batch("good-parent", "true")).await.unwrap();
    let bad = world.create(batch("bad-parent", "false")).await.unwrap();
    let mut child = cores("good-child", 1);
    child.dependencies = vec!["good-parent".into()];
    let child = world.create(child).await.unwrap();
    let mut orphan = cores("bad-child", 1);
    orphan.dependencies = vec!["good-parent".into(), "bad-parent".into()];
    let orphan = world.create(orphan).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let waiting = world.stored(child.id).await;
    let expected = format!("Waiting dependency sessions to finish as success. (good-parent ({}))", good.id);
    assert_eq!(waiting.status_data["scheduler"]["failed_predicates"][0]["msg"], expected);

    // A restart has the commands run again, to an end this time.
    world.agents[0].behave(Manners::default());
    for parent in ["good-parent", "bad-parent"] {
        world.manager().sessions().restart(&world.scope, parent).await.unwrap();
    }
    world.reaches(good.id, SessionStatus::Terminated).await;
    world.reaches(bad.id, SessionStatus::Terminated).await;
    world.reaches(child.id, SessionStatus::Running).await;
    let orphan = world.reaches(orphan.id, SessionStatus::Cancelled).await;
    assert_eq!(orphan.status_info.as_deref(), Some("dependency-failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_limit_what_runs_at_once() {
    let world = World::new(&[8]).await;
    let directory = world.backends.identities.directory().await.unwrap();
    let mut policy = directory.policies["default"].clone();
    policy.max_concurrent_sessions = 1;
    world.backends.identities.put_policy(&policy).await.unwrap();
    let first = world.create(small("only-one")).await.unwrap();
    let second = world.create(cores("one-more", 1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let waiting = world.stored(second.id).await;
    assert_eq!(waiting.status_info.as_deref(), Some("predicate-checks-failed"));
    let failed = &waiting.status_data["scheduler"]["failed_predicates"][0];
    assert_eq!(failed["name"], "concurrency");
    assert_eq!(failed["msg"], "You cannot run more than 1 concurrent sessions");
    world.manager().sessions().destroy(&world.scope, "only-one", false, false).await.unwrap();
    world.reaches(first.id, SessionStatus::Terminated).await;
    world.reaches(second.id, SessionStatus::Running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_session_waits_for_its_time() {
    let world = World::new(&[4]).await;
    let mut request = batch("scheduled-for", "true");
    request.enqueue_only = true;
    request.starts_at = Some("2s".into());
    let session = world.create(request).await.unwrap();
    let planned = session.starts_at.unwrap();
    assert!(planned - session.created_at >= TimeDelta::seconds(2));
    let ended = world.reaches(session.id, SessionStatus::Terminated).await;
    assert!(ended.status_history["SCHEDULED"] >= planned);
    assert!(ended.status_history["SCHEDULED"] < planned + TimeDelta::milliseconds(1500));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_has_a_time_limit_when_the_group_sets_one() {
    let world = World::new(&[1]).await;
    let directory = world.backends.identities.directory().await.unwrap();
    let mut group = directory.resource_groups["default"].clone();
    group.scheduler_opts.insert("pending_timeout".into(), 1.into());
    world.backends.identities.put_resource_group(&group).await.unwrap();
    let session = world.create(cores("too-long", 1000)).await.unwrap();
    let session = world.reaches(session.id, SessionStatus::Cancelled).await;
    assert_eq!(session.status_info.as_deref(), Some("pending-timeout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_tells_who_is_before_whom_and_why() {
    let world = World::new(&[2]).await;
    let first = world.create(cores("running", 2)).await.unwrap();
    world.reaches(first.id, SessionStatus::Running).await;
    let second = world.create(cores("second", 2)).await.unwrap();
    let third = world.create(cores("third", 2)).await.unwrap();
    let sessions = world.manager().sessions().clone();
    let mut queue = Vec::new();
    for _ in 0..500 {
        queue = sessions.queue(&world.scope, None).await.unwrap();
        if queue.len() == 2 && queue.iter().all(|waiting| waiting.position.is_some()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let order: Vec<_> = queue.iter().map(|waiting| (waiting.session.id, waiting.position)).collect();
    assert_eq!(order, [(second.id, Some(0)), (third.id, Some(1))]);
    assert_eq!(queue[0].explanation.sentence(), "needs cpu 2; best agent has 0 free of 2");
    let (_, waiting) = sessions.explain(&world.scope, "third").await.unwrap();
    assert_eq!(waiting.unwrap().position, Some(1));
    let (running, waiting) = sessions.explain(&world.scope, "running").await.unwrap();
    assert_eq!((running.id, waiting.is_none()), (first.id, true));
    assert!(sessions.explain(&world.scope, "nobody").await.is_err());
    let unknown = sessions.queue(&world.scope, Some("other-group")).await.unwrap_err();
    assert_eq!(unknown.code(), bai_core::error::code::RESOURCE_GROUP_NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_important_session_pushes_out_another_one_where_the_group_allows_it() {
    let world = World::new(&[2]).await;
    let directory = world.backends.identities.directory().await.unwrap();
    let mut group = directory.resource_groups["default"].clone();
    group.scheduler_opts.insert("preemption".into(), serde_json::json!({ "enabled": true }));
    world.backends.identities.put_resource_group(&group).await.unwrap();
    let victim = world.create(cores("victim", 2)).await.unwrap();
    world.reaches(victim.id, SessionStatus::Running).await;
    let equal = world.create(cores("equal", 2)).await.unwrap();
    let mut important = cores("important", 2);
    important.priority = Some(50);
    let important = world.create(important).await.unwrap();
    let victim = world.reaches(victim.id, SessionStatus::Terminated).await;
    assert_eq!(victim.status_info.as_deref(), Some("preempted"));
    world.reaches(important.id, SessionStatus::Running).await;
    assert_eq!(world.stored(equal.id).await.status, SessionStatus::Pending);
    world.check_books().await;
}
