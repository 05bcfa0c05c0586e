//! Connections to Redis that break, or fall silent.

use std::time::Instant;

use super::*;
use crate::proxy::Proxy;

const WINDOW: Duration = Duration::from_mins(15);

/// A client behind a proxy, and one that is not.
struct Pair {
    proxy: Proxy,
    weak: Redis,
    firm: Redis,
    url: String,
    prefix: String,
}

impl Pair {
    async fn open() -> Option<Self> {
        let (firm, url, prefix) = super::open().await?;
        let proxy = Proxy::to(&url).await;
        let weak = Redis::connect(&proxy.url(&url), options(&prefix)).await.unwrap();
        Some(Self { proxy, weak, firm, url, prefix })
    }

    async fn clean(self) {
        clean(self.url, self.prefix).await;
    }
}

fn assert_unavailable(error: &Error) {
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, code::COORD_FAILED));
}

/// Reads to the payload, past those before it; all others that came, and the errors.
async fn read_to(
    stream: &mut BoxStream<'static, Result<Envelope, Error>>,
    payload: Value,
) -> (Vec<Value>, Vec<Error>) {
    let (mut seen, mut errors) = (Vec::new(), Vec::new());
    loop {
        match tokio::time::timeout(Duration::from_secs(30), stream.next()).await.unwrap().unwrap() {
            Ok(envelope) if envelope.payload == payload => return (seen, errors),
            Ok(envelope) => seen.push(envelope.payload),
            Err(error) => errors.push(error),
        }
    }
}

#[tokio::test]
async fn calls_fail_while_the_server_is_away_and_work_again_after() {
    let Some(pair) = Pair::open().await else { return };
    assert_eq!(pair.weak.hit("key", WINDOW).await.unwrap(), 1);
    pair.proxy.refuse();
    for _ in 0..3 {
        let start = Instant::now();
        assert_unavailable(&pair.weak.hit("key", WINDOW).await.unwrap_err());
        assert_unavailable(&pair.weak.peek("key", WINDOW).await.unwrap_err());
        assert_unavailable(&pair.weak.reset("key").await.unwrap_err());
        assert_unavailable(&pair.weak.publish("session", &[json!(1)]).await.unwrap_err());
        assert_unavailable(&pair.weak.subscribe(From::Now).await.err().unwrap());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    pair.proxy.restore();
    assert_eq!(pair.weak.hit("key", WINDOW).await.unwrap(), 2);
    pair.weak.publish("session", &[json!(1)]).await.unwrap();
    pair.clean().await;
}

#[tokio::test]
async fn at_most_one_call_fails_when_the_connection_is_cut() {
    let Some(pair) = Pair::open().await else { return };
    pair.weak.hit("key", WINDOW).await.unwrap();
    pair.proxy.cut();
    if let Err(error) = pair.weak.peek("key", WINDOW).await {
        assert_unavailable(&error);
    }
    assert_eq!(pair.weak.peek("key", WINDOW).await.unwrap(), 1);
    pair.clean().await;
}

#[tokio::test]
async fn a_silent_connection_fails_by_the_deadline_and_is_replaced() {
    let Some(pair) = Pair::open().await else { return };
    pair.weak.hit("key", WINDOW).await.unwrap();
    pair.proxy.silence();
    pair.proxy.restore(); // new connections work; the one in use has fallen silent
    let start = Instant::now();
    let calls = (0..8).map(|_| pair.weak.peek("key", WINDOW));
    for result in futures_util::future::join_all(calls).await {
        assert_unavailable(&result.unwrap_err());
    }
    assert!((4..7).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!(pair.weak.peek("key", WINDOW).await.unwrap(), 1);
    pair.proxy.silence();
    let start = Instant::now();
    assert_unavailable(&Redis::connect(&pair.proxy.url(&pair.url), options("x")).await.unwrap_err());
    assert!(start.elapsed().as_secs() < 7, "{:?}", start.elapsed());
    pair.clean().await;
}

#[tokio::test]
async fn a_subscriber_misses_nothing_while_the_server_is_away() {
    let Some(pair) = Pair::open().await else { return };
    let mut stream = pair.weak.subscribe(From::Now).await.unwrap();
    pair.firm.publish("session", &[json!(1)]).await.unwrap();
    read_to(&mut stream, json!(1)).await;
    let reading = tokio::spawn(async move { read_to(&mut stream, json!(4)).await });
    tokio::time::sleep(Duration::from_millis(200)).await; // it waits for events now
    pair.proxy.refuse();
    pair.firm.publish("session", &[json!(2), json!(3)]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    pair.proxy.restore();
    pair.firm.publish("session", &[json!(4)]).await.unwrap();
    let (seen, errors) = reading.await.unwrap();
    assert_eq!(seen, [json!(2), json!(3)]);
    assert!((1..10).contains(&errors.len()), "{errors:?}");
    errors.iter().for_each(assert_unavailable);
    pair.clean().await;
}

#[tokio::test]
async fn a_subscriber_leaves_a_silent_connection() {
    let Some(pair) = Pair::open().await else { return };
    let mut stream = pair.weak.subscribe(From::Now).await.unwrap();
    pair.proxy.silence();
    pair.proxy.restore();
    pair.firm.publish("session", &[json!(1), json!(2)]).await.unwrap();
    let (seen, errors) = read_to(&mut stream, json!(2)).await;
    assert_eq!(seen, [json!(1)]);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.iter().for_each(assert_unavailable);
    pair.clean().await;
}

#[tokio::test]
async fn a_subscriber_that_lost_its_connection_for_too_long_is_told_once() {
    let Some(pair) = Pair::open().await else { return };
    let mut stream = pair.weak.subscribe(From::Now).await.unwrap();
    pair.firm.publish("session", &[json!("first")]).await.unwrap();
    read_to(&mut stream, json!("first")).await;
    pair.proxy.cut();
    let many: Vec<_> = (0..1000).map(|number| json!(number)).collect();
    pair.firm.publish("session", &many).await.unwrap();
    let (seen, errors) = read_to(&mut stream, json!(999)).await;
    let (last, others) = errors.split_last().unwrap();
    assert_eq!(last.code(), code::EVENTS_LAGGED);
    others.iter().for_each(assert_unavailable);
    assert!(seen.len() >= 99, "{}", seen.len());
    assert_eq!(seen, many[many.len() - 1 - seen.len()..many.len() - 1]);
    pair.clean().await;
}

#[tokio::test]
async fn nothing_stays_when_all_is_dropped() {
    let Some(pair) = Pair::open().await else { return };
    let mut stream = pair.weak.subscribe(From::Now).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(100), stream.next()).await;
    assert!(waiting.is_err());
    drop(stream);
    let Pair { proxy, weak, url, prefix, .. } = pair;
    drop(weak);
    proxy.abandoned().await;
    clean(url, prefix).await;
}
