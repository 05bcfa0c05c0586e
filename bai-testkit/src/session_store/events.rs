//! History, the queue of events to publish, and purging.

use std::sync::Arc;

use bai_core::port::store::{NewEvent, SessionChange, SessionEvent};
use bai_core::status::SessionStatus;
use bai_core::{KernelId, Session};

use super::{Rows, commit_one, ended, insert, insert_all, placed};
use crate::fixture::{at, change, change_with, cluster_session, event_named, session};

fn names(events: &[SessionEvent]) -> Vec<&str> {
    events.iter().map(|event| event.event.name.as_str()).collect()
}

fn seqs(events: &[SessionEvent]) -> Vec<i64> {
    events.iter().map(|event| event.seq).collect()
}

pub async fn history_is_kept_oldest_first(store: Arc<dyn Rows>) {
    let mut done = insert_all(&*store, vec![change_with(session("a"), "session_enqueued")]).await;
    let first = done.remove(0);
    assert_eq!(names(&first.events), ["session_enqueued"]);
    let events = ["one", "two", "three"].map(event_named).to_vec();
    let placed = SessionChange { events, ..change(placed(first.session.clone(), "i-1")) };
    let second = commit_one(&*store, placed).await.unwrap();
    insert_all(&*store, vec![change_with(session("b"), "other")]).await;

    let history = store.history(first.session.id).await.unwrap();
    assert_eq!(names(&history), ["session_enqueued", "one", "two", "three"]);
    assert_eq!(history, [first.events, second.events].concat(), "as the commits returned them");
}

pub async fn an_event_tells_the_session_as_committed(store: Arc<dyn Rows>) {
    let pending = insert(&*store, session("a")).await;
    let event = NewEvent { exit_code: Some(-9), ..event_named("session_scheduled") };
    let scheduled = placed(pending, "i-1");
    let done = commit_one(&*store, SessionChange { events: vec![event.clone()], ..change(scheduled) })
        .await
        .unwrap();
    let Session { id, owner, .. } = done.session;
    let expected = SessionEvent {
        seq: done.events[0].seq,
        at: done.events[0].at,
        session: id,
        session_name: "a".to_owned(),
        access_key: owner.access_key,
        user_id: owner.user_id,
        domain: owner.domain,
        project_id: owner.project_id,
        status: SessionStatus::Scheduled,
        event,
        cluster_role: None,
        cluster_idx: None,
    };
    assert_eq!(store.history(id).await.unwrap(), [expected]);
}

pub async fn an_event_of_a_kernel_tells_its_role(store: Arc<dyn Rows>) {
    let new = cluster_session("a", 3);
    let about = |kernel: KernelId| NewEvent { kernel: Some(kernel), ..event_named("kernel_preparing") };
    let events = vec![about(new.kernels[0].id), about(new.kernels[2].id), about(KernelId::random())];
    let done = insert_all(&*store, vec![SessionChange { events, ..change(new) }]).await;
    let history = store.history(done[0].session.id).await.unwrap();
    let roles: Vec<_> =
        history.iter().map(|event| (event.cluster_role.as_deref(), event.cluster_idx)).collect();
    assert_eq!(roles, [(Some("main"), Some(1)), (Some("sub"), Some(2)), (None, None)]);
    assert_eq!(history, done[0].events);
}

pub async fn seq_increases_in_commit_order(store: Arc<dyn Rows>) {
    let mut current = insert(&*store, session("a")).await;
    for number in 0..5 {
        current.priority = number;
        current = commit_one(&*store, change_with(current, "changed")).await.unwrap().session;
        insert_all(&*store, vec![change_with(session(&format!("other{number}")), "other")]).await;
    }
    let history = seqs(&store.history(current.id).await.unwrap());
    assert_eq!(history.len(), 5);
    assert!(history.is_sorted_by(|a, b| a < b), "{history:?}");
}

pub async fn unpublished_events_are_listed_until_marked(store: Arc<dyn Rows>) {
    let changes = ["a", "b", "c"].map(|name| change_with(session(name), name)).to_vec();
    let ids: Vec<_> = changes.iter().map(|change| change.session.id).collect();
    insert_all(&*store, changes).await;
    let all = store.unpublished(10).await.unwrap();
    assert_eq!(names(&all), ["a", "b", "c"]);
    store.mark_published(&[all[0].seq, all[2].seq]).await.unwrap();
    assert_eq!(store.unpublished(10).await.unwrap(), all[1..2]);
    assert_eq!(store.history(ids[0]).await.unwrap(), all[..1], "history stays");
    store.mark_published(&[all[1].seq]).await.unwrap();
    assert_eq!(store.unpublished(10).await.unwrap(), []);
}

pub async fn marking_twice_is_safe(store: Arc<dyn Rows>) {
    insert_all(&*store, vec![change_with(session("a"), "a"), change_with(session("b"), "b")]).await;
    let all = store.unpublished(10).await.unwrap();
    store.mark_published(&[]).await.unwrap();
    store.mark_published(&[all[0].seq]).await.unwrap();
    store.mark_published(&[all[0].seq, i64::MAX]).await.unwrap();
    assert_eq!(store.unpublished(10).await.unwrap(), all[1..]);
}

pub async fn unpublished_is_limited_to_the_oldest(store: Arc<dyn Rows>) {
    let changes = (0..10).map(|number| change_with(session(&format!("s{number}")), &format!("e{number}")));
    insert_all(&*store, changes.collect()).await;
    assert_eq!(names(&store.unpublished(3).await.unwrap()), ["e0", "e1", "e2"]);
    assert_eq!(store.unpublished(0).await.unwrap(), []);
}

pub async fn a_refused_change_leaves_no_event(store: Arc<dyn Rows>) {
    let first = insert(&*store, session("a")).await;
    let stale = Session { version: 5, ..first.clone() };
    let results =
        store.commit(vec![change_with(stale, "refused"), change_with(first, "taken")]).await.unwrap();
    assert!(results[0].is_err() && results[1].is_ok());
    assert_eq!(names(&store.unpublished(10).await.unwrap()), ["taken"]);
}

/// A session that died at [`at`]`(seconds)`, with one event and a log.
async fn dead(store: &dyn Rows, name: &str, seconds: i64) -> Session {
    let alive = insert(store, session(name)).await;
    let dead = commit_one(store, change_with(ended(alive, seconds), name)).await.unwrap().session;
    store.put_log(dead.main().id, dead.id, b"log").await.unwrap();
    dead
}

pub async fn purge_deletes_dead_sessions_with_history_and_logs(store: Arc<dyn Rows>) {
    let old = dead(&*store, "old", 10).await;
    let kept = dead(&*store, "kept", 30).await;
    assert_eq!(store.purge(at(20), 100).await.unwrap(), 1);
    assert_eq!(store.get(old.id).await.unwrap(), None);
    assert_eq!(store.history(old.id).await.unwrap(), []);
    assert_eq!(store.log(old.main().id).await.unwrap(), None);
    assert_eq!(store.get(kept.id).await.unwrap(), Some(kept.clone()));
    assert_eq!(names(&store.history(kept.id).await.unwrap()), ["kept"]);
    assert_eq!(store.log(kept.main().id).await.unwrap().as_deref(), Some(b"log".as_slice()));
    assert_eq!(names(&store.unpublished(10).await.unwrap()), ["kept"]);
    assert_eq!(store.purge(at(20), 100).await.unwrap(), 0);
}

pub async fn purge_keeps_living_and_recent_sessions(store: Arc<dyn Rows>) {
    let alive = insert(&*store, session("alive")).await;
    let mut failed = insert(&*store, session("failed")).await;
    failed.advance(SessionStatus::Error, "failed", at(1)).unwrap();
    let failed = commit_one(&*store, change(failed)).await.unwrap().session;
    let edge = dead(&*store, "edge", 20).await;
    assert_eq!(store.purge(at(20), 100).await.unwrap(), 0, "ended before, not at, the moment");
    for kept in [alive, failed, edge] {
        assert_eq!(store.get(kept.id).await.unwrap(), Some(kept));
    }
}

pub async fn purge_is_limited(store: Arc<dyn Rows>) {
    for number in 0..5 {
        dead(&*store, &format!("s{number}"), number).await;
    }
    assert_eq!(store.purge(at(100), 2).await.unwrap(), 2);
    assert_eq!(store.purge(at(100), 0).await.unwrap(), 0);
    assert_eq!(store.purge(at(100), 100).await.unwrap(), 3);
}
