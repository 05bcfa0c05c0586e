//! PostgreSQL: the suites on a schema of their own.

use std::future::Future;

use bai_core::error::{ErrorKind, code};
use bai_core::port::{LogStore, SessionStore};
use bai_store::{Options, Store};
use bai_testkit::fixture::{at, change_with, session};
use sqlx::Connection;
use uuid::Uuid;

/// A store in a fresh schema, and what removes it.
pub(crate) async fn open() -> Option<(Store, impl Future<Output = ()>)> {
    let (url, cleanup) = fresh_schema().await?;
    let store = Store::connect_postgres(&url, Options::new([7; 32])).await.unwrap();
    Some((store, cleanup))
}

async fn fresh_schema() -> Option<(String, impl Future<Output = ()>)> {
    let server = bai_testkit::service_url("BAI_TEST_POSTGRES_URL")?;
    let schema = format!("bai_test_{}", Uuid::new_v4().simple());
    run(&server, &format!("CREATE SCHEMA {schema}")).await;
    let separator = if server.contains('?') { '&' } else { '?' };
    let url = format!("{server}{separator}options[search_path]={schema}");
    Some((url, async move { run(&server, &format!("DROP SCHEMA {schema} CASCADE")).await }))
}

async fn run(url: &str, statement: &str) {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::Executor::execute(&mut connection, sqlx::raw_sql(sqlx::AssertSqlSafe(statement))).await.unwrap();
    connection.close().await.unwrap();
}

super::all_suites!(crate::postgres::open);

#[tokio::test]
async fn several_processes_share_a_database() {
    let Some((url, cleanup)) = fresh_schema().await else { return };
    // All migrate at once.
    let opened = (0..4).map(|_| {
        let url = url.clone();
        tokio::spawn(async move { Store::connect_postgres(&url, Options::new([7; 32])).await.unwrap() })
    });
    let mut stores = Vec::new();
    for store in opened.collect::<Vec<_>>() {
        stores.push(store.await.unwrap());
    }
    assert!(!stores[0].capability().exclusive);
    let first =
        stores[0].insert(vec![change_with(session("a"), "x")]).await.unwrap().remove(0).unwrap().session;
    let commits = stores.iter().map(|store| {
        let (store, mine) = (store.clone(), first.clone());
        tokio::spawn(async move {
            store.commit(vec![change_with(mine, "raced")]).await.unwrap().remove(0).is_ok()
        })
    });
    let mut winners = 0;
    for commit in commits.collect::<Vec<_>>() {
        winners += usize::from(commit.await.unwrap());
    }
    assert_eq!(winners, 1);
    for store in stores {
        assert_eq!(store.get(first.id).await.unwrap().unwrap().version, 2);
        store.close().await;
    }
    cleanup.await;
}

/// No foreign key takes these rows away.
#[tokio::test]
async fn a_purge_leaves_nothing_of_a_session() {
    let Some((url, cleanup)) = fresh_schema().await else { return };
    let store = Store::connect_postgres(&url, Options::new([7; 32])).await.unwrap();
    let new = store.insert(vec![change_with(session("a"), "x")]).await.unwrap().remove(0).unwrap().session;
    store.put_log(new.main().id, new.id, b"log").await.unwrap();
    let mut dead = new;
    dead.cancel("user-requested", at(10)).unwrap();
    store.commit(vec![change_with(dead, "y")]).await.unwrap().remove(0).unwrap();
    let counts = "SELECT (SELECT COUNT(*) FROM sessions), (SELECT COUNT(*) FROM kernels),
        (SELECT COUNT(*) FROM session_events), (SELECT COUNT(*) FROM outbox), (SELECT COUNT(*) FROM kernel_logs)";
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    let before: (i64, i64, i64, i64, i64) = sqlx::query_as(counts).fetch_one(&mut connection).await.unwrap();
    assert_eq!(before, (1, 1, 2, 2, 1));
    assert_eq!(store.purge(at(20), 10).await.unwrap(), 1);
    let after: (i64, i64, i64, i64, i64) = sqlx::query_as(counts).fetch_one(&mut connection).await.unwrap();
    assert_eq!(after, (0, 0, 0, 0, 0));
    connection.close().await.unwrap();
    store.close().await;
    cleanup.await;
}

#[tokio::test]
async fn an_unreachable_server_is_unavailable() {
    let error = Store::connect_postgres("postgres://user:hidden@127.0.0.1:1/x", Options::new([7; 32]))
        .await
        .unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, code::STORE_FAILED));
    assert!(!format!("{error:?}").contains("hidden"));
    let error = Store::connect_postgres("not a url", Options::new([7; 32])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}
