//! The suite of [`Counter`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use bai_core::port::Counter;

/// One test for each case, on what `$fresh` sets up.
#[macro_export]
macro_rules! counter_conformance {
    ($fresh:path) => {
        $crate::conformance_tests!(
            counter,
            $fresh,
            [
                hits_are_counted,
                keys_are_counted_apart,
                peek_does_not_count,
                reset_forgets_one_key,
                hits_leave_with_the_window,
                concurrent_hits_are_all_counted,
            ]
        );
    };
}

const LONG: Duration = Duration::from_mins(15);

pub async fn hits_are_counted(counter: Arc<dyn Counter>) {
    for expected in 1..=50 {
        assert_eq!(counter.hit("key", LONG).await.unwrap(), expected);
    }
}

pub async fn keys_are_counted_apart(counter: Arc<dyn Counter>) {
    for expected in 1..=3 {
        assert_eq!(counter.hit("a", LONG).await.unwrap(), expected);
        assert_eq!(counter.hit("a:b ü", LONG).await.unwrap(), expected);
    }
    assert_eq!(counter.peek("b", LONG).await.unwrap(), 0);
}

pub async fn peek_does_not_count(counter: Arc<dyn Counter>) {
    assert_eq!(counter.peek("key", LONG).await.unwrap(), 0);
    counter.hit("key", LONG).await.unwrap();
    for _ in 0..3 {
        assert_eq!(counter.peek("key", LONG).await.unwrap(), 1);
    }
    assert_eq!(counter.hit("key", LONG).await.unwrap(), 2);
}

pub async fn reset_forgets_one_key(counter: Arc<dyn Counter>) {
    counter.hit("a", LONG).await.unwrap();
    counter.hit("b", LONG).await.unwrap();
    counter.reset("a").await.unwrap();
    counter.reset("unknown").await.unwrap();
    assert_eq!(counter.peek("a", LONG).await.unwrap(), 0);
    assert_eq!(counter.peek("b", LONG).await.unwrap(), 1);
    assert_eq!(counter.hit("a", LONG).await.unwrap(), 1);
}

pub async fn hits_leave_with_the_window(counter: Arc<dyn Counter>) {
    let window = Duration::from_millis(1500);
    let first = Instant::now();
    for _ in 0..3 {
        counter.hit("key", window).await.unwrap();
    }
    let last = Instant::now();
    let deadline = first + Duration::from_secs(20);
    loop {
        let asked = Instant::now();
        let seen = counter.peek("key", window).await.unwrap();
        if seen == 0 {
            break;
        }
        assert!(asked < deadline, "the hits never left");
        assert!(asked < last + window * 2, "{seen} hits stayed for {:?}", last.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(first.elapsed() > window * 13 / 15, "they left after {:?}", first.elapsed());
    assert_eq!(counter.hit("key", window).await.unwrap(), 1);
}

pub async fn concurrent_hits_are_all_counted(counter: Arc<dyn Counter>) {
    let tasks = (0..32).map(|_| {
        let counter = counter.clone();
        tokio::spawn(async move { counter.hit("key", LONG).await.unwrap() })
    });
    let mut seen = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        seen.push(task.await.unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=32).collect::<Vec<_>>());
}
