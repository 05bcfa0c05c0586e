//! The suite of [`Events`].

use std::sync::Arc;
use std::time::Duration;

use bai_core::Error;
use bai_core::error::{ErrorKind, code};
use bai_core::port::Events;
use bai_core::port::events::{Envelope, From, Position};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde_json::{Value, json};
use tokio::time::timeout;

/// How many events an implementation set up for this suite must keep at least.
pub const KEPT: usize = 64;

/// More events than an implementation set up for this suite may keep.
pub const TOO_MANY: usize = 2_000;

/// One test for each case, on what `$fresh` sets up: one that keeps between [`KEPT`] and [`TOO_MANY`] events.
#[macro_export]
macro_rules! events_conformance {
    ($fresh:path) => {
        $crate::conformance_tests!(
            events,
            $fresh,
            [
                a_subscriber_sees_what_is_published_after,
                events_of_all_topics_come_in_order,
                payloads_arrive_unchanged,
                every_subscriber_sees_every_event,
                a_subscriber_resumes_after_a_position,
                resuming_after_the_last_event_waits_for_the_next,
                a_slow_subscriber_is_told_once_and_goes_on,
                resuming_after_a_lost_event_is_told_once,
                a_foreign_position_is_told_as_lost,
                publishing_nothing_changes_nothing,
                an_idle_subscriber_stays_connected,
                concurrent_publishers_lose_nothing,
            ]
        );
    };
}

type Stream = BoxStream<'static, Result<Envelope, Error>>;

async fn next(stream: &mut Stream) -> Result<Envelope, Error> {
    timeout(Duration::from_secs(10), stream.next())
        .await
        .expect("an event in time")
        .expect("the stream goes on")
}

async fn numbers(stream: &mut Stream, count: usize) -> Vec<Value> {
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push(next(stream).await.unwrap().payload);
    }
    seen
}

async fn assert_quiet(stream: &mut Stream) {
    let found = timeout(Duration::from_millis(100), stream.next()).await;
    assert!(found.is_err(), "{found:?}");
}

fn assert_lagged(item: &Result<Envelope, Error>) {
    let error = item.as_ref().unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, code::EVENTS_LAGGED));
}

fn range(numbers: std::ops::Range<usize>) -> Vec<Value> {
    numbers.map(|number| json!(number)).collect()
}

pub async fn a_subscriber_sees_what_is_published_after(events: Arc<dyn Events>) {
    events.publish("session", &range(0..3)).await.unwrap();
    let mut stream = events.subscribe(From::Now).await.unwrap();
    events.publish("session", &range(3..5)).await.unwrap();
    assert_eq!(numbers(&mut stream, 2).await, range(3..5));
    assert_quiet(&mut stream).await;
}

pub async fn events_of_all_topics_come_in_order(events: Arc<dyn Events>) {
    let mut stream = events.subscribe(From::Now).await.unwrap();
    for number in 0..6 {
        let topic = if number % 2 == 0 { "session" } else { "agent" };
        events.publish(topic, &range(number * 10..number * 10 + 3)).await.unwrap();
    }
    for number in 0..6 {
        for payload in range(number * 10..number * 10 + 3) {
            let envelope = next(&mut stream).await.unwrap();
            let topic = if number % 2 == 0 { "session" } else { "agent" };
            assert_eq!((envelope.topic.as_str(), envelope.payload), (topic, payload));
        }
    }
}

pub async fn payloads_arrive_unchanged(events: Arc<dyn Events>) {
    let payloads = [
        json!({"name": "ünïcode \u{1F600}", "nested": {"list": [1, -2.5, null, true]}}),
        json!(null),
        json!("text\r\n\0with control"),
        json!("x".repeat(100_000)),
    ];
    let mut stream = events.subscribe(From::Now).await.unwrap();
    events.publish("topic with spaces", &payloads).await.unwrap();
    assert_eq!(numbers(&mut stream, payloads.len()).await, payloads);
}

pub async fn every_subscriber_sees_every_event(events: Arc<dyn Events>) {
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(events.subscribe(From::Now).await.unwrap());
    }
    events.publish("session", &range(0..10)).await.unwrap();
    for stream in &mut streams {
        assert_eq!(numbers(stream, 10).await, range(0..10));
    }
}

pub async fn a_subscriber_resumes_after_a_position(events: Arc<dyn Events>) {
    let mut first = events.subscribe(From::Now).await.unwrap();
    events.publish("session", &range(0..10)).await.unwrap();
    numbers(&mut first, 3).await;
    let position = next(&mut first).await.unwrap().position;
    drop(first);
    let mut resumed = events.subscribe(From::After(position)).await.unwrap();
    assert_eq!(numbers(&mut resumed, 6).await, range(4..10));
    events.publish("session", &range(10..12)).await.unwrap();
    assert_eq!(numbers(&mut resumed, 2).await, range(10..12));
}

pub async fn resuming_after_the_last_event_waits_for_the_next(events: Arc<dyn Events>) {
    let mut first = events.subscribe(From::Now).await.unwrap();
    events.publish("session", &range(0..1)).await.unwrap();
    let position = next(&mut first).await.unwrap().position;
    let mut resumed = events.subscribe(From::After(position)).await.unwrap();
    assert_quiet(&mut resumed).await;
    events.publish("session", &range(1..2)).await.unwrap();
    assert_eq!(numbers(&mut resumed, 1).await, range(1..2));
}

pub async fn a_slow_subscriber_is_told_once_and_goes_on(events: Arc<dyn Events>) {
    let mut stream = events.subscribe(From::Now).await.unwrap();
    events.publish("session", &range(0..1)).await.unwrap();
    assert_eq!(numbers(&mut stream, 1).await, range(0..1));
    flood(&*events, 1).await;
    // What had been fetched before it fell behind may still come; then the gap, once; then the rest without gaps.
    let mut expected = 1;
    let first_kept = loop {
        match next(&mut stream).await {
            Ok(envelope) => assert_eq!(envelope.payload, json!(expected)),
            lost => {
                assert_lagged(&lost);
                break number(&next(&mut stream).await.unwrap());
            }
        }
        expected += 1;
    };
    assert!(first_kept > expected && first_kept <= TOO_MANY + 1 - KEPT, "{expected} {first_kept}");
    assert_eq!(numbers(&mut stream, TOO_MANY - first_kept).await, range(first_kept + 1..TOO_MANY + 1));
    assert_quiet(&mut stream).await;
}

pub async fn resuming_after_a_lost_event_is_told_once(events: Arc<dyn Events>) {
    let mut stream = events.subscribe(From::Now).await.unwrap();
    events.publish("session", &range(0..1)).await.unwrap();
    let position = next(&mut stream).await.unwrap().position;
    drop(stream);
    flood(&*events, 1).await;
    let mut resumed = events.subscribe(From::After(position)).await.unwrap();
    assert_lagged(&next(&mut resumed).await);
    let first_kept = number(&next(&mut resumed).await.unwrap());
    assert!(first_kept > 1 && first_kept <= TOO_MANY + 1 - KEPT, "{first_kept}");
    assert_eq!(numbers(&mut resumed, TOO_MANY - first_kept).await, range(first_kept + 1..TOO_MANY + 1));
}

/// Publishes the numbers from `first` on, more than are kept.
async fn flood(events: &dyn Events, first: usize) {
    for chunk in range(first..first + TOO_MANY).chunks(100) {
        events.publish("session", chunk).await.unwrap();
    }
}

fn number(envelope: &Envelope) -> usize {
    usize::try_from(envelope.payload.as_u64().unwrap()).unwrap()
}

pub async fn a_foreign_position_is_told_as_lost(events: Arc<dyn Events>) {
    events.publish("session", &range(0..2)).await.unwrap();
    for foreign in ["", "not a position", "99999999999999999-0", "00000000-0000-0000-0000-000000000000/1"] {
        let mut stream = events.subscribe(From::After(Position(foreign.to_owned()))).await.unwrap();
        assert_lagged(&next(&mut stream).await);
        assert_eq!(numbers(&mut stream, 2).await, range(0..2), "{foreign:?}");
    }
}

pub async fn publishing_nothing_changes_nothing(events: Arc<dyn Events>) {
    let mut stream = events.subscribe(From::Now).await.unwrap();
    events.publish("session", &[]).await.unwrap();
    assert_quiet(&mut stream).await;
    events.publish("session", &range(0..1)).await.unwrap();
    assert_eq!(numbers(&mut stream, 1).await, range(0..1));
}

pub async fn an_idle_subscriber_stays_connected(events: Arc<dyn Events>) {
    let mut stream = events.subscribe(From::Now).await.unwrap();
    let idle = timeout(Duration::from_millis(2_500), stream.next()).await;
    assert!(idle.is_err(), "{idle:?}");
    events.publish("session", &range(0..1)).await.unwrap();
    assert_eq!(numbers(&mut stream, 1).await, range(0..1));
}

pub async fn concurrent_publishers_lose_nothing(events: Arc<dyn Events>) {
    let mut stream = events.subscribe(From::Now).await.unwrap();
    let publishers = (0..8).map(|publisher: usize| {
        let events = events.clone();
        tokio::spawn(async move {
            for number in 0..KEPT / 8 {
                let first = publisher * 100 + number;
                events.publish("session", &range(first..first + 1)).await.unwrap();
            }
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.unwrap();
    }
    let seen: Vec<_> = numbers(&mut stream, KEPT).await.iter().map(|value| value.as_u64().unwrap()).collect();
    for publisher in 0..8 {
        let own: Vec<_> = seen.iter().filter(|number| **number / 100 == publisher).collect();
        assert_eq!(own.len(), KEPT / 8);
        assert!(own.is_sorted(), "each publisher's events keep their order");
    }
}
