//! The suite of [`ConfigStore`].

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bai_core::Error;
use bai_core::error::ErrorKind;
use bai_core::port::ConfigStore;
use bai_core::port::config::{ConfigChange, ConfigEntry};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::time::timeout;

/// One test for each case, on what `$fresh` sets up.
#[macro_export]
macro_rules! config_store_conformance {
    ($fresh:path) => {
        $crate::conformance_tests!(
            config_store,
            $fresh,
            [
                a_written_key_is_found,
                an_unknown_key_is_none,
                values_are_kept_as_they_are,
                every_write_changes_the_revision,
                a_key_written_again_after_deletion_has_a_new_revision,
                a_prefix_lists_its_keys_in_order,
                a_prefix_is_text_and_not_a_pattern,
                compare_and_put_creates_only_what_is_absent,
                compare_and_put_replaces_only_the_expected_revision,
                concurrent_compare_and_puts_have_one_winner,
                delete_says_whether_the_key_existed,
                delete_prefix_counts_what_it_deleted,
                a_watch_sees_changes_below_its_prefix_in_order,
                a_watch_does_not_see_earlier_changes,
                every_watch_sees_every_change,
            ]
        );
    };
}

type Watch = BoxStream<'static, Result<ConfigChange, Error>>;

async fn next(watch: &mut Watch) -> ConfigChange {
    let change = timeout(Duration::from_secs(10), watch.next()).await.expect("a change in time");
    change.expect("the watch goes on").unwrap()
}

fn put(key: &str, value: &str, revision: i64) -> ConfigChange {
    ConfigChange::Put(ConfigEntry { key: key.to_owned(), value: value.to_owned(), revision })
}

async fn keys(store: &dyn ConfigStore, prefix: &str) -> Vec<String> {
    store.get_prefix(prefix).await.unwrap().into_iter().map(|entry| entry.key).collect()
}

pub async fn a_written_key_is_found(store: Arc<dyn ConfigStore>) {
    let revision = store.put("config/idle/enabled", "timeout").await.unwrap();
    assert!(revision > 0);
    let expected =
        ConfigEntry { key: "config/idle/enabled".to_owned(), value: "timeout".to_owned(), revision };
    assert_eq!(store.get("config/idle/enabled").await.unwrap(), Some(expected.clone()));
    assert_eq!(store.get_prefix("config/").await.unwrap(), [expected]);
}

pub async fn an_unknown_key_is_none(store: Arc<dyn ConfigStore>) {
    store.put("config/idle", "x").await.unwrap();
    for unknown in ["config", "config/", "config/idle/enabled", "CONFIG/IDLE"] {
        assert_eq!(store.get(unknown).await.unwrap(), None, "{unknown}");
    }
    assert!(store.get_prefix("other/").await.unwrap().is_empty());
}

pub async fn values_are_kept_as_they_are(store: Arc<dyn ConfigStore>) {
    for (key, value) in [
        ("empty", ""),
        ("number", "5"),
        ("unicode/\u{1F600}", "ünïcode \u{1F600}"),
        ("quotes", r#"'"\ % _"#),
        ("lines", "a\r\nb\n"),
        ("key with spaces & %41", "x"),
    ] {
        store.put(key, value).await.unwrap();
        assert_eq!(store.get(key).await.unwrap().unwrap().value, value, "{key}");
    }
    let long = "x".repeat(200_000);
    store.put("long", &long).await.unwrap();
    assert_eq!(store.get("long").await.unwrap().unwrap().value, long);
}

pub async fn every_write_changes_the_revision(store: Arc<dyn ConfigStore>) {
    let mut revisions = HashSet::new();
    for value in ["a", "b", "b", "a"] {
        assert!(revisions.insert(store.put("key", value).await.unwrap()));
    }
    let other = store.get("key").await.unwrap().unwrap().revision;
    store.put("other", "x").await.unwrap();
    assert_eq!(store.get("key").await.unwrap().unwrap().revision, other, "a write of another key does not");
}

pub async fn a_key_written_again_after_deletion_has_a_new_revision(store: Arc<dyn ConfigStore>) {
    let first = store.put("key", "a").await.unwrap();
    store.delete("key").await.unwrap();
    let second = store.put("key", "a").await.unwrap();
    assert_ne!(first, second);
    assert_eq!(store.compare_and_put("key", first, "b").await.unwrap_err().kind(), ErrorKind::Conflict);
}

pub async fn a_prefix_lists_its_keys_in_order(store: Arc<dyn ConfigStore>) {
    for key in ["b/2", "a/2", "a/10", "a/1/x", "a", "A/1", "a/é", "ab"] {
        store.put(key, "x").await.unwrap();
    }
    assert_eq!(keys(&*store, "a/").await, ["a/1/x", "a/10", "a/2", "a/é"]);
    assert_eq!(keys(&*store, "a").await, ["a", "a/1/x", "a/10", "a/2", "a/é", "ab"]);
    assert_eq!(keys(&*store, "").await.len(), 8);
}

pub async fn a_prefix_is_text_and_not_a_pattern(store: Arc<dyn ConfigStore>) {
    for key in ["a%b/1", "aXb/1", "a_b/1", "a[b/1", "a\u{10FFFF}/1"] {
        store.put(key, "x").await.unwrap();
    }
    assert_eq!(keys(&*store, "a%").await, ["a%b/1"]);
    assert_eq!(keys(&*store, "a_").await, ["a_b/1"]);
    assert_eq!(keys(&*store, "a[").await, ["a[b/1"]);
    assert_eq!(keys(&*store, "a\u{10FFFF}").await, ["a\u{10FFFF}/1"]);
    assert_eq!(store.delete_prefix("a%").await.unwrap(), 1);
    assert_eq!(store.delete_prefix("a_").await.unwrap(), 1);
    assert_eq!(keys(&*store, "").await.len(), 3);
}

pub async fn compare_and_put_creates_only_what_is_absent(store: Arc<dyn ConfigStore>) {
    let revision = store.compare_and_put("key", 0, "a").await.unwrap();
    assert_eq!(store.get("key").await.unwrap().unwrap().revision, revision);
    assert_eq!(store.compare_and_put("key", 0, "b").await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(store.get("key").await.unwrap().unwrap().value, "a");
    store.delete("key").await.unwrap();
    store.compare_and_put("key", 0, "c").await.unwrap();
}

pub async fn compare_and_put_replaces_only_the_expected_revision(store: Arc<dyn ConfigStore>) {
    let first = store.put("key", "a").await.unwrap();
    let second = store.compare_and_put("key", first, "b").await.unwrap();
    assert_ne!(first, second);
    for expected in [first, second + 1000, 0] {
        let error = store.compare_and_put("key", expected, "c").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{expected}");
    }
    assert_eq!(store.compare_and_put("absent", first, "c").await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(store.get("absent").await.unwrap(), None);
    assert_eq!(store.get("key").await.unwrap().unwrap().value, "b");
}

pub async fn concurrent_compare_and_puts_have_one_winner(store: Arc<dyn ConfigStore>) {
    let first = store.put("key", "start").await.unwrap();
    for expected in [first, 0] {
        let key = if expected == 0 { "absent" } else { "key" };
        let tasks = (0..16).map(|number| {
            let store = store.clone();
            tokio::spawn(async move { store.compare_and_put(key, expected, &number.to_string()).await })
        });
        let mut winners = 0;
        for task in tasks.collect::<Vec<_>>() {
            match task.await.unwrap() {
                Ok(_) => winners += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
            }
        }
        assert_eq!(winners, 1, "{key}");
    }
}

pub async fn delete_says_whether_the_key_existed(store: Arc<dyn ConfigStore>) {
    store.put("key", "a").await.unwrap();
    store.put("key/below", "a").await.unwrap();
    assert!(store.delete("key").await.unwrap());
    assert!(!store.delete("key").await.unwrap());
    assert_eq!(keys(&*store, "").await, ["key/below"]);
}

pub async fn delete_prefix_counts_what_it_deleted(store: Arc<dyn ConfigStore>) {
    for key in ["a/1", "a/2", "a/3", "b/1"] {
        store.put(key, "x").await.unwrap();
    }
    assert_eq!(store.delete_prefix("a/").await.unwrap(), 3);
    assert_eq!(store.delete_prefix("a/").await.unwrap(), 0);
    assert_eq!(keys(&*store, "").await, ["b/1"]);
    assert_eq!(store.delete_prefix("").await.unwrap(), 1);
}

pub async fn a_watch_sees_changes_below_its_prefix_in_order(store: Arc<dyn ConfigStore>) {
    let mut watch = store.watch("a/").await.unwrap();
    let first = store.put("a/1", "x").await.unwrap();
    store.put("b/1", "x").await.unwrap();
    let second = store.put("a/1", "y").await.unwrap();
    let third = store.compare_and_put("a/2", 0, "z").await.unwrap();
    let _ = store.compare_and_put("a/2", 0, "refused").await.unwrap_err();
    store.delete("a/absent").await.unwrap();
    store.delete("a/1").await.unwrap();
    store.delete_prefix("a/").await.unwrap();
    assert_eq!(next(&mut watch).await, put("a/1", "x", first));
    assert_eq!(next(&mut watch).await, put("a/1", "y", second));
    assert_eq!(next(&mut watch).await, put("a/2", "z", third));
    assert_eq!(next(&mut watch).await, ConfigChange::Delete("a/1".to_owned()));
    assert_eq!(next(&mut watch).await, ConfigChange::Delete("a/2".to_owned()));
}

pub async fn a_watch_does_not_see_earlier_changes(store: Arc<dyn ConfigStore>) {
    store.put("a/1", "early").await.unwrap();
    let mut watch = store.watch("a/").await.unwrap();
    let revision = store.put("a/1", "late").await.unwrap();
    assert_eq!(next(&mut watch).await, put("a/1", "late", revision));
}

pub async fn every_watch_sees_every_change(store: Arc<dyn ConfigStore>) {
    let mut watches = [store.watch("").await.unwrap(), store.watch("a").await.unwrap()];
    for number in 0..20 {
        store.put(&format!("a/{number}"), "x").await.unwrap();
    }
    for watch in &mut watches {
        for number in 0..20 {
            let ConfigChange::Put(entry) = next(watch).await else { panic!("nothing was deleted") };
            assert_eq!(entry.key, format!("a/{number}"));
        }
    }
}
