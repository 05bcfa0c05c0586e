//! etcd, with keys under a prefix of its own for each test.

use std::sync::Arc;

use bai_coord::{Etcd, EtcdOptions};
use bai_core::error::{ErrorKind, code};
use bai_core::port::ConfigStore;
use bai_testkit::Subject;
use uuid::Uuid;

mod compaction;
mod lost;

async fn open() -> Option<Etcd> {
    let url = bai_testkit::service_url("BAI_TEST_ETCD_URL")?;
    Some(Etcd::connect(&[url], options()).await.unwrap())
}

fn options() -> EtcdOptions {
    let mut options = EtcdOptions::default();
    options.prefix = format!("/bai-test/{}/", Uuid::new_v4().simple());
    options
}

mod config_store {
    use super::*;

    async fn fresh() -> Option<Subject<dyn ConfigStore>> {
        let etcd = open().await?;
        let cleaner = etcd.clone();
        Some(Subject::<dyn ConfigStore>::new(Arc::new(etcd)).cleanup(async move {
            cleaner.delete_prefix("").await.unwrap();
        }))
    }
    bai_testkit::config_store_conformance!(fresh);
}

mod lease {
    use super::*;

    /// What a test leaves ends by itself.
    async fn fresh() -> Option<Subject<dyn bai_core::port::Lease>> {
        Some(Subject::<dyn bai_core::port::Lease>::new(Arc::new(open().await?)))
    }
    bai_testkit::lease_conformance!(fresh);
}

#[tokio::test]
async fn members_that_are_down_are_passed_over() {
    let Some(url) = bai_testkit::service_url("BAI_TEST_ETCD_URL") else { return };
    let etcd = Etcd::connect(&["http://127.0.0.1:1".to_owned(), url], options()).await.unwrap();
    etcd.put("key", "value").await.unwrap();
    assert!(etcd.delete("key").await.unwrap());
}

#[tokio::test]
async fn an_unreachable_server_is_unavailable() {
    let options = EtcdOptions::default;
    let error = Etcd::connect(&["http://127.0.0.1:1".to_owned()], options()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, code::COORD_FAILED));
    for endpoints in [vec![], vec!["not a url".to_owned()], vec!["ftp://host".to_owned()]] {
        assert_eq!(Etcd::connect(&endpoints, options()).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
}
