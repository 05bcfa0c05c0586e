//! SQLite: the suites on a file, and the file itself.

use std::future::Future;

use bai_core::error::{ErrorKind, code};
use bai_core::port::store::SessionQuery;
use bai_core::port::{AgentStore, IdentityStore, SessionStore};
use bai_store::{Options, Store};
use bai_testkit::fixture::{agent, change_with, keypair, policy, session, slots, user};
use tempfile::TempDir;

/// A store on a fresh file, and what removes it.
pub(crate) async fn open() -> Option<(Store, impl Future<Output = ()>)> {
    let directory = TempDir::new().unwrap();
    let store = open_in(&directory).await;
    Some((store, async move { drop(directory) }))
}

async fn open_in(directory: &TempDir) -> Store {
    Store::open_sqlite(directory.path().join("bai.db"), Options::new([7; 32])).await.unwrap()
}

mod on_file {
    super::super::all_suites!(crate::sqlite::open);
}

mod in_memory {
    use bai_store::{Options, Store};

    async fn open() -> Option<(Store, std::future::Ready<()>)> {
        Some((Store::sqlite_in_memory(Options::new([7; 32])).await.unwrap(), std::future::ready(())))
    }
    mod suites {
        super::super::super::all_suites!(super::super::open);
    }
}

#[tokio::test]
async fn rows_survive_reopening() {
    let directory = TempDir::new().unwrap();
    let store = open_in(&directory).await;
    store.put_policy(&policy("default")).await.unwrap();
    store.put_user(&user(1)).await.unwrap();
    store.put_keypair(&keypair(1)).await.unwrap();
    store.put_agent(&agent("i-1", slots(1, 1))).await.unwrap();
    let mut results = store.insert(vec![change_with(session("a"), "session_enqueued")]).await.unwrap();
    let committed = results.remove(0).unwrap();
    store.close().await;
    drop(store);

    let store = open_in(&directory).await;
    assert_eq!(store.get(committed.session.id).await.unwrap().as_ref(), Some(&committed.session));
    assert_eq!(store.unpublished(10).await.unwrap(), committed.events);
    assert_eq!(store.agents().await.unwrap(), [agent("i-1", slots(1, 1))]);
    let credential = store.credential(&keypair(1).access_key).await.unwrap().unwrap();
    assert_eq!(credential.keypair, keypair(1));
}

#[tokio::test]
async fn secret_keys_are_not_in_the_file() {
    let directory = TempDir::new().unwrap();
    let store = open_in(&directory).await;
    store.put_policy(&policy("default")).await.unwrap();
    store.put_user(&user(1)).await.unwrap();
    store.put_keypair(&keypair(1)).await.unwrap();
    let secret = keypair(1).secret_key;
    let is_in = |content: &[u8], text: &str| content.windows(text.len()).any(|part| part == text.as_bytes());
    let path = directory.path().join("bai.db");
    let log_path = directory.path().join("bai.db-wal");
    let log = std::fs::read(&log_path).unwrap();
    store.close().await;
    drop(store);
    assert!(!log_path.exists(), "its content is in the file now");
    let file = std::fs::read(&path).unwrap();
    assert!(is_in(&log, "AKIA1") && is_in(&file, "AKIA1"), "this is where the row is");
    assert!(!is_in(&log, secret.reveal()) && !is_in(&file, secret.reveal()));

    let wrong_key = Store::open_sqlite(&path, Options::new([8; 32])).await.unwrap();
    let error = wrong_key.credential(&keypair(1).access_key).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Internal, code::STORE_CORRUPT));
}

#[tokio::test]
async fn a_file_is_opened_once_at_a_time() {
    let directory = TempDir::new().unwrap();
    let store = open_in(&directory).await;
    assert!(store.capability().exclusive);
    let error = Store::open_sqlite(directory.path().join("bai.db"), Options::new([7; 32])).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, code::STORE_FAILED));
    assert_eq!(error.message(), "the database is in use by another process");
    assert!(error.context().contains(&("pid", std::process::id().to_string())), "{error}");
    drop(store);
    open_in(&directory).await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("bai.db");
    std::fs::write(&path, "x".repeat(10_000)).unwrap();
    let error = Store::open_sqlite(&path, Options::new([7; 32])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let missing = directory.path().join("missing/bai.db");
    assert_eq!(
        Store::open_sqlite(&missing, Options::new([7; 32])).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
}

#[tokio::test]
async fn a_closed_store_is_unavailable() {
    let (store, _cleanup) = open().await.unwrap();
    store.close().await;
    assert_eq!(store.find(&SessionQuery::default()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let results = store.commit(vec![change_with(session("a"), "x")]).await;
    assert_eq!(results.unwrap_err().kind(), ErrorKind::Unavailable);
}
