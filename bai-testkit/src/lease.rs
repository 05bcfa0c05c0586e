//! The suite of [`Lease`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use bai_core::error::{ErrorKind, code};
use bai_core::port::Lease;
use bai_core::port::lease::Grant;

/// One test for each case, on what `$fresh` sets up.
#[macro_export]
macro_rules! lease_conformance {
    ($fresh:path) => {
        $crate::conformance_tests!(
            lease,
            $fresh,
            [
                a_free_lease_is_granted,
                a_held_lease_is_not_granted,
                names_do_not_affect_each_other,
                a_released_lease_is_free,
                tokens_grow_from_holder_to_holder,
                a_lease_ends_by_itself,
                renewing_keeps_the_lease,
                renewing_an_ended_grant_is_a_conflict,
                releasing_twice_is_safe,
                an_ended_grant_releases_nothing,
                concurrent_attempts_have_one_winner,
            ]
        );
    };
}

const LONG: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_secs(1);

async fn acquire(lease: &dyn Lease, name: &str, holder: &str, ttl: Duration) -> Grant {
    lease.try_acquire(name, holder, ttl).await.unwrap().expect("the lease is free")
}

async fn wait_until_free(lease: &dyn Lease, name: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while lease.holder(name).await.unwrap().is_some() {
        assert!(Instant::now() < deadline, "the lease never ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn assert_lost(lease: &dyn Lease, grant: &Grant) {
    let error = lease.renew(grant).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, code::LEASE_LOST));
}

pub async fn a_free_lease_is_granted(lease: Arc<dyn Lease>) {
    assert_eq!(lease.holder("leader").await.unwrap(), None);
    let grant = acquire(&*lease, "leader", "me", LONG).await;
    assert_eq!(grant.name, "leader");
    assert!(grant.token > 0);
    assert_eq!(lease.holder("leader").await.unwrap().as_deref(), Some("me"));
}

pub async fn a_held_lease_is_not_granted(lease: Arc<dyn Lease>) {
    acquire(&*lease, "leader", "me", LONG).await;
    assert_eq!(lease.try_acquire("leader", "other", LONG).await.unwrap(), None);
    assert_eq!(lease.try_acquire("leader", "me", LONG).await.unwrap(), None, "not even to its holder");
    assert_eq!(lease.holder("leader").await.unwrap().as_deref(), Some("me"));
}

pub async fn names_do_not_affect_each_other(lease: Arc<dyn Lease>) {
    let long_name = acquire(&*lease, "lock/a/b", "one", LONG).await;
    acquire(&*lease, "lock/a", "two", LONG).await;
    lease.release(&long_name).await.unwrap();
    assert_eq!(lease.holder("lock/a").await.unwrap().as_deref(), Some("two"));
    assert_eq!(lease.holder("lock/a/b").await.unwrap(), None);
    assert_eq!(lease.holder("lock").await.unwrap(), None);
}

pub async fn a_released_lease_is_free(lease: Arc<dyn Lease>) {
    let grant = acquire(&*lease, "leader", "me", LONG).await;
    lease.release(&grant).await.unwrap();
    assert_eq!(lease.holder("leader").await.unwrap(), None);
    assert_lost(&*lease, &grant).await;
    acquire(&*lease, "leader", "other", LONG).await;
}

pub async fn tokens_grow_from_holder_to_holder(lease: Arc<dyn Lease>) {
    let mut last = 0;
    for number in 0..5 {
        let grant = acquire(&*lease, "leader", &number.to_string(), LONG).await;
        assert!(grant.token > last, "{grant:?} after {last}");
        last = grant.token;
        lease.release(&grant).await.unwrap();
    }
}

pub async fn a_lease_ends_by_itself(lease: Arc<dyn Lease>) {
    let first = acquire(&*lease, "leader", "crashed", SHORT).await;
    wait_until_free(&*lease, "leader").await;
    assert_lost(&*lease, &first).await;
    let second = acquire(&*lease, "leader", "successor", LONG).await;
    assert!(second.token > first.token);
}

pub async fn renewing_keeps_the_lease(lease: Arc<dyn Lease>) {
    let start = Instant::now();
    let grant = acquire(&*lease, "leader", "me", Duration::from_secs(2)).await;
    while start.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        lease.renew(&grant).await.unwrap();
        assert_eq!(lease.try_acquire("leader", "other", LONG).await.unwrap(), None);
    }
    wait_until_free(&*lease, "leader").await;
}

pub async fn renewing_an_ended_grant_is_a_conflict(lease: Arc<dyn Lease>) {
    let ended = acquire(&*lease, "leader", "me", LONG).await;
    lease.release(&ended).await.unwrap();
    let current = acquire(&*lease, "leader", "me", LONG).await;
    assert_lost(&*lease, &ended).await;
    lease.renew(&current).await.unwrap();
}

pub async fn releasing_twice_is_safe(lease: Arc<dyn Lease>) {
    let grant = acquire(&*lease, "leader", "me", LONG).await;
    lease.release(&grant).await.unwrap();
    lease.release(&grant).await.unwrap();
}

pub async fn an_ended_grant_releases_nothing(lease: Arc<dyn Lease>) {
    let ended = acquire(&*lease, "leader", "me", LONG).await;
    lease.release(&ended).await.unwrap();
    let current = acquire(&*lease, "leader", "me", LONG).await;
    lease.release(&ended).await.unwrap();
    assert_eq!(lease.holder("leader").await.unwrap().as_deref(), Some("me"));
    lease.renew(&current).await.unwrap();
}

pub async fn concurrent_attempts_have_one_winner(lease: Arc<dyn Lease>) {
    let tasks = (0..16).map(|number| {
        let lease = lease.clone();
        tokio::spawn(async move { lease.try_acquire("leader", &number.to_string(), LONG).await.unwrap() })
    });
    let mut grants = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        grants.extend(task.await.unwrap());
    }
    assert_eq!(grants.len(), 1, "{grants:?}");
}
