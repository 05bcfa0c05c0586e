//! The suite of [`LogStore`].

use std::sync::Arc;

use bai_core::port::LogStore;
use bai_core::{KernelId, SessionId};

/// One test for each case, on what `$fresh` sets up.
#[macro_export]
macro_rules! log_store_conformance {
    ($fresh:path) => {
        $crate::conformance_tests!(
            log_store,
            $fresh,
            [a_kept_log_is_found_again, a_log_that_was_not_kept_is_none, a_later_log_replaces_the_earlier,]
        );
    };
}

pub async fn a_kept_log_is_found_again(store: Arc<dyn LogStore>) {
    let (kernel, session) = (KernelId::random(), SessionId::random());
    let log: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    store.put_log(kernel, session, &log).await.unwrap();
    assert_eq!(store.log(kernel).await.unwrap(), Some(log));
    store.put_log(kernel, session, b"").await.unwrap();
    assert_eq!(store.log(kernel).await.unwrap(), Some(Vec::new()), "an empty log is a log");
}

pub async fn a_log_that_was_not_kept_is_none(store: Arc<dyn LogStore>) {
    store.put_log(KernelId::random(), SessionId::random(), b"other").await.unwrap();
    assert_eq!(store.log(KernelId::random()).await.unwrap(), None);
}

pub async fn a_later_log_replaces_the_earlier(store: Arc<dyn LogStore>) {
    let (kernel, session) = (KernelId::random(), SessionId::random());
    store.put_log(kernel, session, b"first").await.unwrap();
    store.put_log(kernel, session, b"second").await.unwrap();
    assert_eq!(store.log(kernel).await.unwrap().as_deref(), Some(b"second".as_slice()));
}
