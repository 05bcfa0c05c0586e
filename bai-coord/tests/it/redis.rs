//! Redis, with keys under a prefix of its own for each test.

use std::sync::Arc;
use std::time::Duration;

use bai_coord::{Redis, RedisOptions};
use bai_core::error::{ErrorKind, code};
use bai_core::port::Events;
use bai_core::port::events::From;
use bai_testkit::Subject;
use futures_util::StreamExt;
use serde_json::json;
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

#[tokio::test]
async fn a_subscriber_learns_that_the_server_lost_its_data() {
    let Some((redis, url, prefix)) = open().await else { return };
    let mut stream = redis.subscribe(From::Now).await.unwrap();
    redis.publish("session", &[json!(1), json!(2)]).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().payload, json!(1));
    clean(url.clone(), prefix.clone()).await;
    redis.publish("session", &[json!("anew")]).await.unwrap();
    let mut lagged = 0;
    let payload = loop {
        let item = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.unwrap().unwrap();
        match item {
            Ok(envelope) if envelope.payload == json!(2) => {}
            Ok(envelope) => break envelope.payload,
            Err(error) => {
                assert_eq!(error.code(), code::EVENTS_LAGGED);
                lagged += 1;
            }
        }
    };
    assert_eq!((payload, lagged), (json!("anew"), 1));
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
