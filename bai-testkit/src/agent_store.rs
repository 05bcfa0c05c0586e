//! The suite of [`AgentStore`].

use std::sync::Arc;

use bai_core::error::ErrorKind;
use bai_core::port::AgentStore;
use bai_core::port::store::AgentStatus;
use bai_core::{AgentId, error::code};

use crate::fixture::{agent, at, slots};

/// One test for each case, on what `$fresh` sets up.
#[macro_export]
macro_rules! agent_store_conformance {
    ($fresh:path) => {
        $crate::conformance_tests!(
            agent_store,
            $fresh,
            [
                an_agent_is_found_as_it_was_put,
                agents_are_ordered_by_id,
                a_later_row_replaces_all_but_first_contact_and_schedulable,
                set_schedulable_changes_only_that,
                set_schedulable_of_an_unknown_agent_is_not_found,
            ]
        );
    };
}

pub async fn an_agent_is_found_as_it_was_put(store: Arc<dyn AgentStore>) {
    assert_eq!(store.agents().await.unwrap(), []);
    let mut row = agent("i-1", slots(8, 1 << 34));
    row.schedulable = false;
    row.lost_at = Some(at(99));
    store.put_agent(&row).await.unwrap();
    assert_eq!(store.agents().await.unwrap(), [row]);
}

pub async fn agents_are_ordered_by_id(store: Arc<dyn AgentStore>) {
    for id in ["i-b", "i-a", "i-B", "i-10", "i-9"] {
        store.put_agent(&agent(id, slots(1, 1))).await.unwrap();
    }
    let ids: Vec<_> = store.agents().await.unwrap().into_iter().map(|agent| agent.id.to_string()).collect();
    assert_eq!(ids, ["i-10", "i-9", "i-B", "i-a", "i-b"]);
}

pub async fn a_later_row_replaces_all_but_first_contact_and_schedulable(store: Arc<dyn AgentStore>) {
    let first = agent("i-1", slots(8, 1 << 34));
    store.put_agent(&first).await.unwrap();
    store.set_schedulable(&first.id, false).await.unwrap();
    let mut second = agent("i-1", slots(16, 1 << 35));
    second.status = AgentStatus::Restarting;
    second.status_changed = at(50);
    second.first_contact = at(50);
    second.last_seen = at(51);
    second.addr = "http://elsewhere:6011".to_owned();
    second.isolation_gaps.clear();
    second.live_stat = serde_json::Value::Null;
    store.put_agent(&second).await.unwrap();
    second.first_contact = first.first_contact;
    second.schedulable = false;
    assert_eq!(store.agents().await.unwrap(), [second]);
}

pub async fn set_schedulable_changes_only_that(store: Arc<dyn AgentStore>) {
    let mut row = agent("i-1", slots(8, 1 << 34));
    let other = agent("i-2", slots(8, 1 << 34));
    store.put_agent(&row).await.unwrap();
    store.put_agent(&other).await.unwrap();
    store.set_schedulable(&row.id, false).await.unwrap();
    row.schedulable = false;
    assert_eq!(store.agents().await.unwrap(), [row.clone(), other.clone()]);
    store.set_schedulable(&row.id, true).await.unwrap();
    row.schedulable = true;
    assert_eq!(store.agents().await.unwrap(), [row, other]);
}

pub async fn set_schedulable_of_an_unknown_agent_is_not_found(store: Arc<dyn AgentStore>) {
    let error = store.set_schedulable(&AgentId::new("i-none"), true).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::NotFound, code::AGENT_NOT_FOUND));
}
