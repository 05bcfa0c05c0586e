//! Lists of sessions: conditions, filters, orders and pages.

use std::sync::Arc;

use bai_core::Session;
use bai_core::port::store::SessionQuery;
use bai_core::status::SessionStatus;

use super::{Rows, insert, placed};
use crate::fixture::{at, project_id, session};

/// The names found, in order.
async fn found(store: &dyn Rows, query: &SessionQuery) -> Vec<String> {
    let page = store.find(query).await.unwrap();
    assert!(page.total >= page.items.len() as u64);
    page.items.into_iter().map(|session| session.name).collect()
}

pub async fn find_without_conditions_lists_all_newest_first(store: Arc<dyn Rows>) {
    for (name, created, terminated) in
        [("old", 1, None), ("new", 5, None), ("ended", 2, Some(9)), ("mid", 3, Some(4))]
    {
        let terminated_at = terminated.map(at);
        insert(&*store, Session { created_at: at(created), terminated_at, ..session(name) }).await;
    }
    assert_eq!(found(&*store, &SessionQuery::default()).await, ["ended", "new", "mid", "old"]);
}

pub async fn find_keeps_every_condition(store: Arc<dyn Rows>) {
    let base = insert(&*store, Session { created_at: at(1), ..session("base") }).await;
    let mut other_key = Session { created_at: at(2), ..session("base") };
    other_key.owner.access_key = "AKIAOTHER".into();
    let mut other_domain = Session { created_at: at(3), ..session("domain") };
    other_domain.owner.domain = "other".to_owned();
    let mut other_project = Session { created_at: at(4), ..session("project") };
    other_project.owner.project_id = project_id(2);
    let scheduled = placed(Session { created_at: at(5), ..session("scheduled") }, "i-1");
    for other in [other_key, other_domain, other_project, scheduled] {
        insert(&*store, other).await;
    }
    let query = SessionQuery::default;
    for (query, expected) in [
        (SessionQuery { access_key: Some("AKIAOTHER".into()), ..query() }, vec!["base"]),
        (SessionQuery { domain: Some("other".to_owned()), ..query() }, vec!["domain"]),
        (SessionQuery { project: Some(project_id(2)), ..query() }, vec!["project"]),
        (
            SessionQuery { statuses: vec![SessionStatus::Scheduled, SessionStatus::Running], ..query() },
            vec!["scheduled"],
        ),
        (SessionQuery { name: Some("base".to_owned()), ..query() }, vec!["base", "base"]),
        (SessionQuery { name: Some("BASE".to_owned()), ..query() }, vec![]),
        (
            SessionQuery {
                name: Some("base".to_owned()),
                access_key: Some(base.owner.access_key),
                ..query()
            },
            vec!["base"],
        ),
        (SessionQuery { domain: Some("other".to_owned()), project: Some(project_id(2)), ..query() }, vec![]),
    ] {
        assert_eq!(found(&*store, &query).await, expected, "{query:?}");
    }
}

pub async fn find_pages_and_counts_all(store: Arc<dyn Rows>) {
    for number in 0..7 {
        insert(&*store, Session { created_at: at(number), ..session(&format!("s{number}")) }).await;
    }
    for (offset, limit, expected) in [
        (0, Some(3), vec!["s6", "s5", "s4"]),
        (3, Some(3), vec!["s3", "s2", "s1"]),
        (6, Some(3), vec!["s0"]),
        (7, Some(3), vec![]),
        (5, None, vec!["s1", "s0"]),
        (0, Some(0), vec![]),
        (0, Some(u64::MAX), vec!["s6", "s5", "s4", "s3", "s2", "s1", "s0"]),
        (u64::MAX, Some(1), vec![]),
    ] {
        let page = store.find(&SessionQuery { offset, limit, ..SessionQuery::default() }).await.unwrap();
        let names: Vec<_> = page.items.into_iter().map(|session| session.name).collect();
        assert_eq!(
            (names, page.total),
            (expected.into_iter().map(str::to_owned).collect(), 7),
            "{offset} {limit:?}"
        );
    }
}

pub async fn equal_rows_are_paged_without_overlap(store: Arc<dyn Rows>) {
    for number in 0..9 {
        insert(&*store, session(&format!("s{number}"))).await;
    }
    let mut seen = Vec::new();
    for offset in 0..9 {
        seen.extend(
            found(&*store, &SessionQuery { offset, limit: Some(1), ..SessionQuery::default() }).await,
        );
    }
    seen.sort();
    assert_eq!(seen, (0..9).map(|number| format!("s{number}")).collect::<Vec<_>>());
}
