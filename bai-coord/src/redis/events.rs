//! Events: one stream, whose entries we number besides, so that a gap is seen as such. The server's own entry numbers follow
//! its clock, and so do ours where they begin: what is published after the server has lost its data comes after all that was
//! there before, with numbers that never were.

mod place;
mod subscriber;

use std::sync::LazyLock;

use ::redis::Script;
use async_trait::async_trait;
use bai_core::error::Result;
use bai_core::port::Events;
use bai_core::port::events::{Envelope, From};
use futures_util::stream::BoxStream;
use serde_json::Value;

use super::Redis;
use place::Place;
use subscriber::Subscriber;

/// Appends events and returns the server's and our number of the last one. Without events it only makes sure that our
/// numbers have begun.
static APPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local stream, state = KEYS[1], KEYS[2]
        local kept, topic = ARGV[1], ARGV[2]
        if redis.call('EXISTS', state) == 0 then
            local time = redis.call('TIME')
            redis.call('XTRIM', stream, 'MAXLEN', 0)
            redis.call('HSET', state, 'id', '0-0', 'last', time[1] .. string.format('%06d', time[2]))
        end
        for i = 3, #ARGV do
            local number = string.format('%.0f', redis.call('HINCRBY', state, 'last', 1))
            local id = redis.call('XADD', stream, 'MAXLEN', '~', kept, '*', 'n', number, 't', topic, 'p', ARGV[i])
            redis.call('HSET', state, 'id', id)
        end
        return redis.call('HMGET', state, 'id', 'last')
        ",
    )
});

#[async_trait]
impl Events for Redis {
    async fn publish(&self, topic: &str, payloads: &[Value]) -> Result<()> {
        if payloads.is_empty() {
            return Ok(());
        }
        self.append(topic, payloads).await.map(drop)
    }

    async fn subscribe(&self, from: From) -> Result<BoxStream<'static, Result<Envelope>>> {
        Subscriber::open(self.clone(), from).await.map(Subscriber::into_stream)
    }
}

impl Redis {
    /// Appends events and returns the place of the last one.
    async fn append(&self, topic: &str, payloads: &[Value]) -> Result<Place> {
        let mut script = APPEND.prepare_invoke();
        script.key(self.stream_key()).key(self.key("events", "state"));
        script.arg(self.options.kept_events.max(1)).arg(topic);
        for payload in payloads {
            script.arg(payload.to_string());
        }
        let last: (String, u64) =
            self.shared.call(async |mut connection| script.invoke_async(&mut connection).await).await?;
        Place::new(&last.0, last.1)
    }

    /// The place of the last event.
    async fn last_place(&self) -> Result<Place> {
        self.append("", &[]).await
    }

    fn stream_key(&self) -> String {
        self.key("events", "stream")
    }
}
