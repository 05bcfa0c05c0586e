//! Redis, with keys under a prefix of its own for each test.

use std::sync::Arc;
use std::time::Duration;

use bai_coord::{Redis, RedisOptions};
use bai_core::Error;
use bai_core::error::{ErrorKind, code};
use bai_core::port::events::{Envelope, From};
use bai_core::port::{Counter, Events};
use bai_testkit::Subject;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde_json::{Value, json};
use uuid::Uuid;

mod lost;

async fn open() -> Option<(Redis, String, String)> {
    let url = bai_testkit::service_url("BAI_TEST_REDIS_URL")?;
    let prefix = format!("bai-test-{}", Uuid::new_v4().simple());
    Some((Redis::connect(&url, options(&prefix)).await.unwrap(), url, prefix))
}

fn options(prefix: &str) -> RedisOptions {
    let mut options = RedisOptions::default();
    options.prefix = prefix.to_owned();
    options.kept_events = 100;
    options
}

async fn run(url: &str, command: &mut redis::Cmd) -> redis::Value {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    command.query_async(&mut connection).await.unwrap()
}

/// Removes the keys of a test.
async fn clean(url: String, prefix: String) {
    let keys = run(&url, redis::cmd("KEYS").arg(format!("*{prefix}*"))).await;
    let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
    if !keys.is_empty() {
        run(&url, redis::cmd("DEL").arg(keys)).await;
    }
}

mod events {
    use super::*;

    async fn fresh() -> Option<Subject<dyn bai_core::port::Events>> {
        let (redis, url, prefix) = open().await?;
        Some(Subject::<dyn Events>::new(Arc::new(redis)).cleanup(clean(url, prefix)))
    }
    bai_testkit::events_conformance!(fresh);
}

mod counter {
    use super::*;

    async fn fresh() -> Option<Subject<dyn bai_core::port::Counter>> {
        let (redis, url, prefix) = open().await?;
        Some(Subject::<dyn bai_core::port::Counter>::new(Arc::new(redis)).cleanup(clean(url, prefix)))
    }
    bai_testkit::counter_conformance!(fresh);
}

/// The next payloads to the last of those expected, and how often the subscriber was told of a loss.
async fn read(stream: &mut BoxStream<'static, Result<Envelope, Error>>, count: usize) -> (Vec<Value>, usize) {
    let (mut payloads, mut lagged) = (Vec::new(), 0);
    while payloads.len() < count {
        match tokio::time::timeout(Duration::from_secs(20), stream.next()).await.unwrap().unwrap() {
            Ok(envelope) => payloads.push(envelope.payload),
            Err(error) => {
                assert_eq!(error.code(), code::EVENTS_LAGGED);
                lagged += 1;
            }
        }
    }
    (payloads, lagged)
}

#[tokio::test]
async fn a_subscriber_learns_that_the_server_lost_its_data() {
    let Some((redis, url, prefix)) = open().await else { return };
    let mut stream = redis.subscribe(From::Now).await.unwrap();
    redis.publish("session", &[json!(1), json!(2)]).await.unwrap();
    assert_eq!(read(&mut stream, 2).await, (vec![json!(1), json!(2)], 0));
    clean(url.clone(), prefix.clone()).await;
    let anew = [json!(3), json!(4), json!(5), json!(6)]; // more than there were before
    redis.publish("session", &anew).await.unwrap();
    assert_eq!(read(&mut stream, 4).await, (anew.to_vec(), 1));
    clean(url, prefix).await;
}

#[tokio::test]
async fn a_position_from_before_the_server_lost_its_data_is_told_as_lost() {
    let Some((redis, url, prefix)) = open().await else { return };
    let mut stream = redis.subscribe(From::Now).await.unwrap();
    redis.publish("session", &[json!(1)]).await.unwrap();
    let position = stream.next().await.unwrap().unwrap().position;
    clean(url.clone(), prefix.clone()).await;
    redis.publish("session", &[json!(2), json!(3)]).await.unwrap();
    let mut resumed = redis.subscribe(From::After(position)).await.unwrap();
    assert_eq!(read(&mut resumed, 2).await, (vec![json!(2), json!(3)], 1));
    clean(url, prefix).await;
}

#[tokio::test]
async fn a_subscriber_learns_that_the_clock_of_the_server_went_back() {
    let Some((redis, url, prefix)) = open().await else { return };
    redis.publish("session", &[json!("today")]).await.unwrap();
    let (stream, state) = (format!("{{{prefix}:events}}:stream"), format!("{{{prefix}:events}}:state"));
    let (id, number) = ("99999999999999-0", 99_999_999_999_999_000_u64);
    let fields = ["n", &number.to_string(), "t", "session", "p", "\"tomorrow\""];
    run(&url, redis::cmd("XADD").arg(&stream).arg(id).arg(&fields)).await;
    run(&url, redis::cmd("HSET").arg(&state).arg("id").arg(id).arg("last").arg(number)).await;
    let mut subscribed = redis.subscribe(From::Now).await.unwrap();
    clean(url.clone(), prefix.clone()).await;
    redis.publish("session", &[json!("today again"), json!("and again")]).await.unwrap();
    let expected = vec![json!("today again"), json!("and again")];
    assert_eq!(read(&mut subscribed, 2).await, (expected, 1));
    clean(url, prefix).await;
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    let Some((redis, url, prefix)) = open().await else { return };
    for _ in 0..20 {
        redis.publish("session", &vec![json!("x"); 100]).await.unwrap();
    }
    let length = run(&url, redis::cmd("XLEN").arg(format!("{{{prefix}:events}}:stream"))).await;
    let length: usize = redis::from_redis_value(length).unwrap();
    assert!((100..400).contains(&length), "{length}"); // whole nodes of a hundred entries
    let window = Duration::from_mins(15);
    redis.hit("key", window).await.unwrap();
    let left = run(&url, redis::cmd("PTTL").arg(format!("{prefix}:counter:key"))).await;
    let left: u64 = redis::from_redis_value(left).unwrap();
    assert!((900_000..=960_000).contains(&left), "{left}"); // the window and the slice in progress
    clean(url, prefix).await;
}

#[tokio::test]
async fn an_unreachable_server_is_unavailable() {
    let error = Redis::connect("redis://:hidden@127.0.0.1:1/0", RedisOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, code::COORD_FAILED));
    assert!(!format!("{error:?}").contains("hidden"));
    let error = Redis::connect("not a url", RedisOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}
