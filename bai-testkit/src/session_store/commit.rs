//! Commits: compare-and-swap, batches, and the capacity guard.

use std::sync::Arc;

use bai_core::error::{Error, ErrorKind, code};
use bai_core::port::store::{Committed, SessionChange};
use bai_core::slots::ResourceSlots;
use bai_core::status::{SessionResult, SessionStatus};
use bai_core::{AgentId, Session};
use serde_json::json;

use super::{Rows, assert_moved_on, commit_one, ended, insert, insert_one, placed, running, stored};
use crate::fixture::{agent, at, change, change_with, cluster_session, session, slots};

pub async fn a_commit_replaces_the_session_under_the_next_version(store: Arc<dyn Rows>) {
    let first = insert(&*store, cluster_session("one", 2)).await;
    let next = placed(first.clone(), "i-1");
    let committed = commit_one(&*store, change(next.clone())).await.unwrap().session;
    assert_eq!(committed, Session { version: 2, ..next });
    assert_eq!(stored(&*store, first.id).await, committed);
    let third = commit_one(&*store, change(running(&committed))).await.unwrap().session;
    assert_eq!(third.version, 3);
    assert_eq!(stored(&*store, first.id).await, third);
}

pub async fn a_commit_replaces_every_part(store: Arc<dyn Rows>) {
    let mut next = insert(&*store, cluster_session("one", 3)).await;
    next.priority = 99;
    next.result = SessionResult::Success;
    next.starts_at = Some(at(100));
    next.terminated_at = Some(at(200));
    next.status_info = Some("ünïcode \u{1F600} \0 \"quoted\" \\ '; DROP TABLE sessions".to_owned());
    next.status_data.insert("scheduler".to_owned(), json!({"retries": 3, "msg": null, "deep": [1.5, true]}));
    next.status_history.insert("ERROR".to_owned(), at(201));
    next.owner.email = "new@example.com".to_owned();
    next.spec.environ.insert("A".to_owned(), "B".to_owned());
    next.spec.startup_command = Some("echo 1".to_owned());
    next.spec.dependencies = vec![bai_core::SessionId::random()];
    next.kernels.remove(2);
    next.kernels[0].container_id = Some("abc".to_owned());
    next.kernels[0].exit_code = Some(-1);
    next.kernels[0].last_stat = Some(json!({"cpu_used": {"current": "1.0"}}));
    next.kernels[1].agent = Some(AgentId::new("i-9"));
    next.kernels[1].allocated = slots(2, 1 << 40);
    next.kernels[1].image = "r-base:4".to_owned();
    let committed = commit_one(&*store, change(next.clone())).await.unwrap().session;
    assert_eq!(committed, Session { version: 2, ..next });
    assert_eq!(stored(&*store, committed.id).await, committed);
}

pub async fn a_stale_commit_is_a_conflict_and_changes_nothing(store: Arc<dyn Rows>) {
    let first = insert(&*store, session("one")).await;
    let second = commit_one(&*store, change(placed(first.clone(), "i-1"))).await.unwrap().session;
    for stale in [first.version, 0, second.version + 1] {
        let late = Session { version: stale, ..ended(first.clone(), 20) };
        assert_moved_on(&commit_one(&*store, change_with(late, "session_cancelled")).await.unwrap_err());
    }
    assert_eq!(stored(&*store, first.id).await, second);
    assert_eq!(store.history(first.id).await.unwrap(), []);
}

pub async fn a_commit_of_an_unknown_session_is_not_found(store: Arc<dyn Rows>) {
    for version in [0, 1] {
        let unknown = Session { version, ..session("one") };
        let error = commit_one(&*store, change(unknown.clone())).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::NotFound, code::SESSION_NOT_FOUND));
        assert_eq!(store.get(unknown.id).await.unwrap(), None);
    }
}

pub async fn a_commit_onto_a_taken_name_is_a_conflict(store: Arc<dyn Rows>) {
    insert(&*store, session("taken")).await;
    let mine = insert(&*store, session("mine")).await;
    let renamed = Session { name: "taken".to_owned(), ..mine.clone() };
    assert_moved_on(&commit_one(&*store, change(renamed)).await.unwrap_err());
    assert_eq!(stored(&*store, mine.id).await, mine);
}

pub async fn a_commit_may_rename(store: Arc<dyn Rows>) {
    let first = insert(&*store, session("old")).await;
    let renamed = Session { name: "new".to_owned(), ..first };
    let renamed = commit_one(&*store, change(renamed)).await.unwrap().session;
    insert(&*store, session("old")).await;
    assert_eq!(stored(&*store, renamed.id).await.name, "new");
    assert!(insert_one(&*store, change(session("new"))).await.is_err());
}

pub async fn changes_of_a_batch_succeed_and_fail_on_their_own(store: Arc<dyn Rows>) {
    let mut sessions = Vec::new();
    for name in ["a", "b", "c", "d"] {
        sessions.push(insert(&*store, session(name)).await);
    }
    let [a, b, c, d] = <[Session; 4]>::try_from(sessions).unwrap();
    let stale = Session { version: 7, ..placed(b.clone(), "i-1") };
    let renamed = Session { name: "a".to_owned(), ..c.clone() };
    let batch = vec![
        change(placed(a.clone(), "i-1")),
        change(stale),
        change(session("unknown")),
        change(renamed),
        change(placed(d.clone(), "i-1")),
    ];
    let results = store.commit(batch).await.unwrap();
    let kinds: Vec<_> = results.iter().map(|result| result.as_ref().err().map(Error::kind)).collect();
    let conflict = Some(ErrorKind::Conflict);
    assert_eq!(kinds, [None, conflict, Some(ErrorKind::NotFound), conflict, None]);
    for (id, status) in [(a.id, SessionStatus::Scheduled), (d.id, SessionStatus::Scheduled)] {
        let found = stored(&*store, id).await;
        assert_eq!((found.status, found.version), (status, 2));
    }
    assert_eq!((stored(&*store, b.id).await, stored(&*store, c.id).await), (b, c));
}

pub async fn a_second_change_of_the_same_session_in_a_batch_needs_the_new_version(store: Arc<dyn Rows>) {
    let first = insert(&*store, session("one")).await;
    let second = placed(first.clone(), "i-1");
    let third = running(&Session { version: 2, ..second.clone() });
    let results = store.commit(vec![change(second.clone()), change(second), change(third)]).await.unwrap();
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert_moved_on(results[1].as_ref().unwrap_err());
    let found = stored(&*store, first.id).await;
    assert_eq!((found.version, found.status), (3, SessionStatus::Running));
}

pub async fn a_name_freed_in_a_batch_can_be_taken_in_it(store: Arc<dyn Rows>) {
    let old = insert(&*store, session("name")).await;
    let other = insert(&*store, session("other")).await;
    let renamed = Session { name: "name".to_owned(), ..other };
    let results = store.commit(vec![change(ended(old, 5)), change(renamed)]).await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

pub async fn a_commit_without_kernels_is_invalid(store: Arc<dyn Rows>) {
    let first = insert(&*store, session("one")).await;
    let empty = Session { kernels: Vec::new(), ..first.clone() };
    assert_eq!(commit_one(&*store, change(empty)).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(stored(&*store, first.id).await, first);
}

pub async fn an_empty_commit_does_nothing(store: Arc<dyn Rows>) {
    assert!(store.commit(Vec::new()).await.unwrap().is_empty());
    assert!(store.insert(Vec::new()).await.unwrap().is_empty());
}

pub async fn concurrent_commits_have_one_winner(store: Arc<dyn Rows>) {
    let first = insert(&*store, session("one")).await;
    let tasks = (0..16).map(|number| {
        let (store, mut mine) = (store.clone(), first.clone());
        mine.priority = number;
        tokio::spawn(async move { commit_one(&*store, change_with(mine, "raced")).await })
    });
    let mut winners = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(Committed { session, .. }) => winners.push(session),
            Err(error) => assert_moved_on(&error),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(stored(&*store, first.id).await, winners[0]);
    assert_eq!(store.history(first.id).await.unwrap().len(), 1);
}

pub async fn concurrent_inserts_of_one_name_have_one_winner(store: Arc<dyn Rows>) {
    let tasks = (0..16).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { insert_one(&*store, change(session("one"))).await })
    });
    let mut winners = 0;
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(_) => winners += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists),
        }
    }
    assert_eq!(winners, 1);
}

fn guarded(session: Session) -> SessionChange {
    SessionChange { guard_capacity: true, ..change_with(session, "session_scheduled") }
}

fn assert_over_capacity(result: &Result<Committed, Error>) {
    let error = result.as_ref().unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, code::OVER_CAPACITY));
}

/// Room for `cores` fixture kernels on `i-1`.
async fn room_for(store: &dyn Rows, cores: i64) {
    store.put_agent(&agent("i-1", slots(cores, 1 << 40))).await.unwrap();
}

pub async fn the_guard_refuses_more_than_the_capacity(store: Arc<dyn Rows>) {
    room_for(&*store, 2).await;
    for name in ["a", "b"] {
        let pending = insert(&*store, session(name)).await;
        commit_one(&*store, guarded(placed(pending, "i-1"))).await.unwrap();
    }
    let pending = insert(&*store, session("c")).await;
    assert_over_capacity(&commit_one(&*store, guarded(placed(pending.clone(), "i-1"))).await);
    assert_eq!(stored(&*store, pending.id).await, pending);
}

pub async fn the_guard_counts_what_the_batch_has_placed_before(store: Arc<dyn Rows>) {
    room_for(&*store, 3).await;
    let mut batch = Vec::new();
    for (name, kernels) in [("a", 2), ("b", 2), ("c", 1), ("d", 1)] {
        let pending = insert(&*store, cluster_session(name, kernels)).await;
        batch.push(guarded(placed(pending, "i-1")));
    }
    let results = store.commit(batch).await.unwrap();
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert_over_capacity(&results[1]);
    assert_over_capacity(&results[3]);
}

pub async fn the_guard_counts_every_slot(store: Arc<dyn Rows>) {
    store.put_agent(&agent("i-1", slots(100, 3 << 19))).await.unwrap();
    let [a, b] = [insert(&*store, session("a")).await, insert(&*store, session("b")).await];
    let results = store.commit(vec![guarded(placed(a, "i-1")), guarded(placed(b, "i-1"))]).await.unwrap();
    assert!(results[0].is_ok());
    assert_over_capacity(&results[1]);
    let mut exotic = insert(&*store, session("c")).await;
    exotic.kernels[0].requested =
        [("cuda.shares", "0.1".parse::<bai_core::slots::Amount>().unwrap())].into_iter().collect();
    assert_over_capacity(&commit_one(&*store, guarded(placed(exotic, "i-1"))).await);
}

pub async fn the_guard_does_not_count_the_session_twice(store: Arc<dyn Rows>) {
    room_for(&*store, 2).await;
    let pending = insert(&*store, cluster_session("a", 2)).await;
    let scheduled = commit_one(&*store, guarded(placed(pending, "i-1"))).await.unwrap().session;
    let again = commit_one(&*store, guarded(running(&scheduled))).await.unwrap().session;
    assert_eq!(again.version, 3);
    let other = insert(&*store, session("b")).await;
    assert_over_capacity(&commit_one(&*store, guarded(placed(other, "i-1"))).await);
}

pub async fn the_guard_sees_released_capacity(store: Arc<dyn Rows>) {
    room_for(&*store, 1).await;
    let first = insert(&*store, session("a")).await;
    let held = commit_one(&*store, guarded(placed(first, "i-1"))).await.unwrap().session;
    let [b, c] = [insert(&*store, session("b")).await, insert(&*store, session("c")).await];
    let freeing = change(ended(held, 20));
    let batch = vec![
        guarded(placed(b.clone(), "i-1")),
        freeing,
        guarded(placed(b, "i-1")),
        guarded(placed(c, "i-1")),
    ];
    let results = store.commit(batch).await.unwrap();
    assert_over_capacity(&results[0]);
    assert!(results[1].is_ok() && results[2].is_ok(), "{results:?}");
    assert_over_capacity(&results[3]);
}

pub async fn the_guard_knows_no_room_on_an_unknown_agent(store: Arc<dyn Rows>) {
    let pending = insert(&*store, session("a")).await;
    assert_over_capacity(&commit_one(&*store, guarded(placed(pending, "i-unknown"))).await);
}

pub async fn without_the_guard_capacity_is_not_checked(store: Arc<dyn Rows>) {
    room_for(&*store, 1).await;
    let pending = insert(&*store, cluster_session("a", 5)).await;
    commit_one(&*store, change(placed(pending, "i-1"))).await.unwrap();
}

pub async fn concurrent_placements_never_exceed_the_capacity(store: Arc<dyn Rows>) {
    room_for(&*store, 5).await;
    let mut tasks = Vec::new();
    for number in 0..16 {
        let pending = insert(&*store, session(&format!("s{number}"))).await;
        let store = store.clone();
        tasks.push(tokio::spawn(async move { commit_one(&*store, guarded(placed(pending, "i-1"))).await }));
    }
    let mut held = ResourceSlots::default();
    for task in tasks {
        match task.await.unwrap() {
            Ok(committed) => held.add(&committed.session.allocated()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
    assert_eq!(held, slots(5, 5 << 20));
}
