//! Connections to etcd that break, or fall silent; members that fail.

use std::time::{Duration, Instant};

use bai_core::Error;
use bai_core::port::Lease;
use bai_core::port::config::ConfigChange;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::*;
use crate::proxy::Proxy;

/// Several ways to one server, as if they were its cluster, and one that does not fail.
struct Members {
    proxies: Vec<Proxy>,
    weak: Etcd,
    firm: Etcd,
}

impl Members {
    async fn open(count: usize) -> Option<Self> {
        let url = bai_testkit::service_url("BAI_TEST_ETCD_URL")?;
        let mut proxies = Vec::new();
        for _ in 0..count {
            proxies.push(Proxy::to(&url).await);
        }
        let endpoints: Vec<_> = proxies.iter().map(|proxy| proxy.url(&url)).collect();
        let options = options();
        let weak = Etcd::connect(&endpoints, options.clone()).await.unwrap();
        let firm = Etcd::connect(&[url], options).await.unwrap();
        Some(Self { proxies, weak, firm })
    }

    async fn clean(self) {
        self.firm.delete_prefix("").await.unwrap();
    }
}

fn assert_unavailable(error: &Error) {
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, code::COORD_FAILED));
}

/// Reads to the change of that key; all keys that changed before, and the errors.
async fn read_to(
    watch: &mut BoxStream<'static, Result<ConfigChange, Error>>,
    key: &str,
) -> (Vec<String>, Vec<Error>) {
    let (mut seen, mut errors) = (Vec::new(), Vec::new());
    loop {
        match tokio::time::timeout(Duration::from_secs(30), watch.next()).await.unwrap().unwrap() {
            Ok(ConfigChange::Put(entry)) if entry.key == key => return (seen, errors),
            Ok(ConfigChange::Put(entry)) => seen.push(entry.key),
            Ok(ConfigChange::Delete(key)) => seen.push(format!("-{key}")),
            Err(error) => errors.push(error),
        }
    }
}

#[tokio::test]
async fn calls_fail_while_the_server_is_away_and_work_again_after() {
    let Some(members) = Members::open(1).await else { return };
    let revision = members.weak.put("key", "a").await.unwrap();
    members.proxies[0].refuse();
    for _ in 0..3 {
        let start = Instant::now();
        let weak = &members.weak;
        assert_unavailable(&weak.get("key").await.unwrap_err());
        assert_unavailable(&weak.get_prefix("").await.unwrap_err());
        assert_unavailable(&weak.put("key", "b").await.unwrap_err());
        assert_unavailable(&weak.compare_and_put("key", revision, "b").await.unwrap_err());
        assert_unavailable(&weak.delete("key").await.unwrap_err());
        assert_unavailable(&weak.delete_prefix("").await.unwrap_err());
        assert_unavailable(&weak.watch("").await.err().unwrap());
        assert_unavailable(&weak.try_acquire("leader", "me", Duration::from_mins(1)).await.unwrap_err());
        assert_unavailable(&weak.holder("leader").await.unwrap_err());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    members.proxies[0].restore();
    assert_eq!(members.weak.get("key").await.unwrap().unwrap().revision, revision);
    members.clean().await;
}

#[tokio::test]
async fn a_silent_member_fails_by_the_deadline_and_the_next_one_answers() {
    let Some(members) = Members::open(2).await else { return };
    members.weak.put("key", "a").await.unwrap();
    members.proxies[0].silence();
    let start = Instant::now();
    let calls = (0..8).map(|_| members.weak.get("key"));
    for result in futures_util::future::join_all(calls).await {
        assert_unavailable(&result.unwrap_err());
    }
    assert!((4..7).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    let start = Instant::now();
    assert_eq!(members.weak.get("key").await.unwrap().unwrap().value, "a");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    members.clean().await;
}

#[tokio::test]
async fn calls_go_to_another_member_when_one_fails() {
    let Some(members) = Members::open(3).await else { return };
    members.weak.put("key", "a").await.unwrap();
    for failed in 0..2 {
        members.proxies[failed].refuse();
        // The one that notices may fail: it cannot know whether it had its effect.
        if let Err(error) = members.weak.get("key").await {
            assert_unavailable(&error);
        }
        assert_eq!(members.weak.get("key").await.unwrap().unwrap().value, "a");
    }
    members.proxies[0].restore();
    members.proxies[2].refuse();
    let mut answered = false;
    for _ in 0..3 {
        answered |= members.weak.get("key").await.is_ok();
    }
    assert!(answered);
    members.clean().await;
}

#[tokio::test]
async fn a_watch_misses_nothing_while_the_server_is_away() {
    let Some(members) = Members::open(1).await else { return };
    let mut watch = members.weak.watch("").await.unwrap();
    members.firm.put("1", "x").await.unwrap();
    read_to(&mut watch, "1").await;
    members.proxies[0].refuse();
    members.firm.put("2", "x").await.unwrap();
    members.firm.delete("1").await.unwrap();
    let reading = tokio::spawn(async move { read_to(&mut watch, "3").await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    members.proxies[0].restore();
    members.firm.put("3", "x").await.unwrap();
    let (seen, errors) = reading.await.unwrap();
    assert_eq!(seen, ["2", "-1"]);
    assert!((1..10).contains(&errors.len()), "{errors:?}");
    errors.iter().for_each(assert_unavailable);
    members.clean().await;
}

#[tokio::test]
async fn a_watch_moves_from_a_failed_member_to_another() {
    let Some(members) = Members::open(2).await else { return };
    let mut watch = members.weak.watch("").await.unwrap();
    members.proxies[0].refuse();
    members.firm.put("1", "x").await.unwrap();
    members.firm.put("2", "x").await.unwrap();
    let (seen, errors) = read_to(&mut watch, "2").await;
    assert_eq!(seen, ["1"]);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.iter().for_each(assert_unavailable);
    members.clean().await;
}

#[tokio::test]
async fn a_watch_leaves_a_silent_member() {
    let Some(members) = Members::open(2).await else { return };
    let mut watch = members.weak.watch("").await.unwrap();
    members.proxies[0].silence();
    members.firm.put("1", "x").await.unwrap();
    members.firm.put("2", "x").await.unwrap();
    let start = Instant::now();
    let (seen, errors) = read_to(&mut watch, "2").await;
    assert_eq!(seen, ["1"]);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.iter().for_each(assert_unavailable);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    members.clean().await;
}

#[tokio::test]
async fn an_idle_watch_stays() {
    let Some(members) = Members::open(1).await else { return };
    let mut watch = members.weak.watch("").await.unwrap();
    let idle = tokio::time::timeout(Duration::from_secs(12), watch.next()).await; // longer than it waits before it asks
    assert!(idle.is_err(), "{idle:?}");
    members.firm.put("1", "x").await.unwrap();
    let (seen, errors) = read_to(&mut watch, "1").await;
    assert!(seen.is_empty() && errors.is_empty(), "{seen:?} {errors:?}");
    members.clean().await;
}

#[tokio::test]
async fn a_lease_outlives_a_short_loss_of_the_connection_but_not_a_long_one() {
    let Some(members) = Members::open(1).await else { return };
    let proxy = &members.proxies[0];
    let grant = members.weak.try_acquire("leader", "me", Duration::from_secs(3)).await.unwrap().unwrap();
    proxy.refuse();
    assert_unavailable(&members.weak.renew(&grant).await.unwrap_err());
    proxy.restore();
    members.weak.renew(&grant).await.unwrap();
    proxy.refuse();
    let deadline = Instant::now() + Duration::from_secs(20);
    let successor = loop {
        let taken = members.firm.try_acquire("leader", "successor", Duration::from_mins(1)).await.unwrap();
        if let Some(grant) = taken {
            break grant;
        }
        assert!(Instant::now() < deadline, "the lease never ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(successor.token > grant.token);
    proxy.restore();
    let error = members.weak.renew(&grant).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, code::LEASE_LOST));
    members.weak.release(&grant).await.unwrap();
    assert_eq!(members.weak.holder("leader").await.unwrap().as_deref(), Some("successor"));
    members.firm.release(&successor).await.unwrap();
    members.clean().await;
}

#[tokio::test]
async fn nothing_stays_when_all_is_dropped() {
    let Some(members) = Members::open(1).await else { return };
    let mut watch = members.weak.watch("").await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(100), watch.next()).await;
    assert!(waiting.is_err());
    drop(watch);
    let Members { proxies, weak, .. } = members;
    drop(weak);
    proxies[0].abandoned().await;
}
