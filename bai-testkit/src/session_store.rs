//! The suite of [`SessionStore`].

mod commit;
mod events;
mod find;

use std::sync::Arc;

use bai_core::error::{Error, ErrorKind, code};
use bai_core::port::store::{Committed, SessionChange};
use bai_core::port::{AgentStore, IdentityStore, LogStore, SessionStore};
use bai_core::status::{KernelStatus, SessionStatus};
use bai_core::{AgentId, Session, SessionId};

use crate::fixture::{at, change, change_with, session};

pub use commit::*;
pub use events::*;
pub use find::*;

/// The rows that sessions touch: agents have the capacity, users the full name, purging drops logs.
pub trait Rows: SessionStore + AgentStore + IdentityStore + LogStore {}
impl<T: SessionStore + AgentStore + IdentityStore + LogStore> Rows for T {}

/// One test for each case, on what `$fresh` sets up.
#[macro_export]
macro_rules! session_store_conformance {
    ($fresh:path) => {
        $crate::conformance_tests!(
            session_store,
            $fresh,
            [
                an_inserted_session_is_found_as_version_1,
                an_unknown_session_is_none,
                a_dead_session_is_still_found,
                versions_are_those_of_the_living,
                a_taken_id_already_exists,
                a_living_name_of_the_same_access_key_already_exists,
                a_name_is_free_for_another_access_key,
                a_dead_sessions_name_is_free,
                a_refused_insert_concerns_itself_alone,
                of_two_with_one_name_in_one_insert_the_first_is_in,
                an_insert_without_kernels_is_invalid,
                an_insert_obeys_the_capacity_guard,
                a_commit_replaces_the_session_under_the_next_version,
                a_commit_replaces_every_part,
                a_stale_commit_is_a_conflict_and_changes_nothing,
                a_commit_of_an_unknown_session_is_not_found,
                a_commit_onto_a_taken_name_is_a_conflict,
                a_commit_may_rename,
                changes_of_a_batch_succeed_and_fail_on_their_own,
                a_second_change_of_the_same_session_in_a_batch_needs_the_new_version,
                a_name_freed_in_a_batch_can_be_taken_in_it,
                a_commit_without_kernels_is_invalid,
                an_empty_commit_does_nothing,
                concurrent_commits_have_one_winner,
                concurrent_inserts_of_one_name_have_one_winner,
                the_guard_refuses_more_than_the_capacity,
                the_guard_counts_what_the_batch_has_placed_before,
                the_guard_counts_every_slot,
                the_guard_does_not_count_the_session_twice,
                the_guard_sees_released_capacity,
                the_guard_knows_no_room_on_an_unknown_agent,
                without_the_guard_capacity_is_not_checked,
                concurrent_placements_never_exceed_the_capacity,
                history_is_kept_oldest_first,
                an_event_tells_the_session_as_committed,
                an_event_of_a_kernel_tells_its_role,
                seq_increases_in_commit_order,
                unpublished_events_are_listed_until_marked,
                marking_twice_is_safe,
                unpublished_is_limited_to_the_oldest,
                a_refused_change_leaves_no_event,
                purge_deletes_dead_sessions_with_history_and_logs,
                purge_keeps_living_and_recent_sessions,
                purge_is_limited,
                find_without_conditions_lists_all_newest_first,
                find_keeps_every_condition,
                find_pages_and_counts_all,
                equal_rows_are_paged_without_overlap,
                every_field_can_be_filtered,
                every_field_can_be_ordered,
                array_fields_match_any_element,
                absent_values_are_neither_equal_nor_different,
                patterns_mean_the_same_everywhere,
                an_unknown_field_is_invalid,
                a_filter_is_never_run_as_text,
            ]
        );
    };
}

/// Inserts without events and returns the stored session.
async fn insert(store: &dyn Rows, session: Session) -> Session {
    insert_one(store, change(session)).await.unwrap().session
}

async fn insert_one(store: &dyn Rows, change: SessionChange) -> Result<Committed, Error> {
    let mut results = store.insert(vec![change]).await.unwrap();
    assert_eq!(results.len(), 1);
    results.remove(0)
}

/// Inserts changes of which none is refused.
async fn insert_all(store: &dyn Rows, changes: Vec<SessionChange>) -> Vec<Committed> {
    store.insert(changes).await.unwrap().into_iter().map(Result::unwrap).collect()
}

async fn commit_one(store: &dyn Rows, change: SessionChange) -> Result<Committed, Error> {
    let mut results = store.commit(vec![change]).await.unwrap();
    assert_eq!(results.len(), 1);
    results.remove(0)
}

async fn stored(store: &dyn Rows, id: SessionId) -> Session {
    store.get(id).await.unwrap().unwrap()
}

fn placed(mut session: Session, agent: &str) -> Session {
    let agents = vec![AgentId::new(agent); session.kernels.len()];
    session.place(&agents, at(10)).unwrap();
    session
}

fn ended(mut session: Session, seconds: i64) -> Session {
    session.cancel("user-requested", at(seconds)).unwrap();
    session
}

fn assert_exists(error: &Error, existing: SessionId) {
    assert_eq!((error.kind(), error.code()), (ErrorKind::AlreadyExists, code::SESSION_EXISTS));
    assert!(error.context().contains(&("session", existing.to_string())), "{error}");
}

fn assert_moved_on(error: &Error) {
    assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, code::SESSION_MOVED_ON));
}

pub async fn an_inserted_session_is_found_as_version_1(store: Arc<dyn Rows>) {
    let new = session("one");
    let committed = insert(&*store, new.clone()).await;
    assert_eq!(committed, Session { version: 1, ..new });
    assert_eq!(stored(&*store, committed.id).await, committed);
}

pub async fn an_unknown_session_is_none(store: Arc<dyn Rows>) {
    insert(&*store, session("one")).await;
    assert_eq!(store.get(SessionId::random()).await.unwrap(), None);
    assert_eq!(store.history(SessionId::random()).await.unwrap(), []);
}

pub async fn a_dead_session_is_still_found(store: Arc<dyn Rows>) {
    let alive = insert(&*store, session("one")).await;
    let dead = commit_one(&*store, change(ended(alive, 5))).await.unwrap().session;
    assert_eq!(dead.status, SessionStatus::Cancelled);
    assert_eq!(stored(&*store, dead.id).await, dead);
}

pub async fn versions_are_those_of_the_living(store: Arc<dyn Rows>) {
    let one = insert(&*store, session("one")).await;
    let two = insert(&*store, session("two")).await;
    let two = commit_one(&*store, change(two)).await.unwrap().session;
    let dead = insert(&*store, session("dead")).await;
    commit_one(&*store, change(ended(dead, 5))).await.unwrap();
    let mut versions = store.versions().await.unwrap();
    versions.sort_by_key(|(_, version)| *version);
    assert_eq!(versions, [(one.id, 1), (two.id, 2)]);
}

pub async fn a_taken_id_already_exists(store: Arc<dyn Rows>) {
    let first = insert(&*store, session("one")).await;
    let again = Session { id: first.id, ..session("two") };
    assert_exists(&insert_one(&*store, change(again)).await.unwrap_err(), first.id);
    assert_eq!(stored(&*store, first.id).await, first);
}

pub async fn a_living_name_of_the_same_access_key_already_exists(store: Arc<dyn Rows>) {
    let first = insert(&*store, session("one")).await;
    assert_exists(&insert_one(&*store, change(session("one"))).await.unwrap_err(), first.id);
    insert(&*store, session("One")).await; // names are compared exactly
    let mut failed = first.clone();
    failed.advance(SessionStatus::Error, "failed", at(5)).unwrap();
    commit_one(&*store, change(failed)).await.unwrap();
    assert_exists(&insert_one(&*store, change(session("one"))).await.unwrap_err(), first.id);
}

pub async fn a_name_is_free_for_another_access_key(store: Arc<dyn Rows>) {
    insert(&*store, session("one")).await;
    let mut other = session("one");
    other.owner.access_key = "AKIAOTHER".into();
    insert(&*store, other).await;
}

pub async fn a_dead_sessions_name_is_free(store: Arc<dyn Rows>) {
    for _ in 0..2 {
        let alive = insert(&*store, session("one")).await;
        commit_one(&*store, change(ended(alive, 5))).await.unwrap();
    }
    insert(&*store, session("one")).await;
}

pub async fn a_refused_insert_concerns_itself_alone(store: Arc<dyn Rows>) {
    let first = insert(&*store, session("one")).await;
    let (two, again, three) = (session("two"), session("one"), session("three"));
    let ids = [two.id, three.id];
    let changes = [(two, "a"), (again.clone(), "b"), (three, "c")];
    let changes = changes.into_iter().map(|(session, event)| change_with(session, event));
    let mut results = store.insert(changes.collect()).await.unwrap();
    assert_exists(&results.remove(1).unwrap_err(), first.id);
    assert_eq!(store.get(again.id).await.unwrap(), None);
    assert!(store.history(again.id).await.unwrap().is_empty());
    let done: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        done.iter().map(|committed| committed.session.id).collect::<Vec<_>>(),
        ids,
        "in the order given"
    );
    for committed in done {
        assert_eq!(stored(&*store, committed.session.id).await, committed.session);
        assert_eq!(store.history(committed.session.id).await.unwrap(), committed.events);
    }
}

pub async fn of_two_with_one_name_in_one_insert_the_first_is_in(store: Arc<dyn Rows>) {
    let (a, b) = (session("one"), session("one"));
    let mut results = store.insert(vec![change(a.clone()), change(b.clone())]).await.unwrap();
    assert_exists(&results.remove(1).unwrap_err(), a.id);
    assert_eq!(stored(&*store, a.id).await, results.remove(0).unwrap().session);
    assert_eq!(store.get(b.id).await.unwrap(), None);
}

pub async fn an_insert_without_kernels_is_invalid(store: Arc<dyn Rows>) {
    let mut empty = session("one");
    empty.kernels.clear();
    assert_eq!(insert_one(&*store, change(empty.clone())).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.get(empty.id).await.unwrap(), None);
}

pub async fn an_insert_obeys_the_capacity_guard(store: Arc<dyn Rows>) {
    store.put_agent(&crate::fixture::agent("i-1", crate::fixture::slots(1, 1 << 20))).await.unwrap();
    let guarded = |name| SessionChange { guard_capacity: true, ..change(placed(session(name), "i-1")) };
    insert(&*store, session("taken")).await;
    let mut results = store.insert(vec![guarded("taken"), guarded("a"), guarded("b")]).await.unwrap();
    let codes: Vec<_> =
        results.drain(..).map(|result| result.map(drop).map_err(|error| error.code())).collect();
    assert_eq!(codes, [Err(code::SESSION_EXISTS), Ok(()), Err(code::OVER_CAPACITY)]);
    assert_eq!(insert_one(&*store, guarded("c")).await.unwrap_err().code(), code::OVER_CAPACITY);
}

/// The main kernel reaches `RUNNING`.
fn running(session: &Session) -> Session {
    let mut session = session.clone();
    let main = session.main().id;
    session.advance(SessionStatus::Preparing, "preparing", at(11)).unwrap();
    session.advance_kernel(main, KernelStatus::Running, "started", at(12)).unwrap();
    session
}
