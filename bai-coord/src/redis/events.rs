//! Events: one stream whose entries are numbered by us, `1-0`, `2-0`, …, so that a gap is seen as such. A hash beside
//! it names the run of the numbering, which begins anew when the server has lost its data.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::streams::{StreamId, StreamReadReply};
use ::redis::{AsyncConnectionConfig, Script};
use async_trait::async_trait;
use bai_core::error::{Error, Result, code};
use bai_core::port::Events;
use bai_core::port::events::{Envelope, From, Position};
use futures_util::stream::{self, BoxStream, StreamExt};
use serde_json::Value;
use uuid::Uuid;

use super::{Redis, TIMEOUT, failed};

/// How long one read waits for events before it looks whether the numbering has begun anew.
const BLOCK: Duration = Duration::from_secs(2);

/// Most events of one read.
const BATCH: usize = 256;

/// Pause before connecting again.
const PAUSE: Duration = Duration::from_millis(500);

/// Appends events and returns the run and the last number. Without events it only makes sure that there is a run.
static APPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local stream, state = KEYS[1], KEYS[2]
        local fresh_run, kept, topic = ARGV[1], ARGV[2], ARGV[3]
        if redis.call('HSETNX', state, 'run', fresh_run) == 1 then
            redis.call('DEL', stream)
            redis.call('HSET', state, 'last', 0)
        end
        for i = 4, #ARGV do
            local number = string.format('%.0f-0', redis.call('HINCRBY', state, 'last', 1))
            redis.call('XADD', stream, 'MAXLEN', '~', kept, number, 't', topic, 'p', ARGV[i])
        end
        return redis.call('HMGET', state, 'run', 'last')
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
        let (run, last) = self.append("", &[]).await?;
        let connection = self.connect_for_reading().await?;
        let mut subscriber = Subscriber {
            redis: self.clone(),
            connection: Some(connection),
            run,
            last,
            ready: VecDeque::new(),
        };
        if let From::After(position) = from {
            match subscriber.number_of(&position) {
                Some(number) => subscriber.last = number,
                None => subscriber.begin_anew(),
            }
        }
        Ok(stream::unfold(subscriber, |mut subscriber| async move {
            let item = subscriber.next().await;
            Some((item, subscriber))
        })
        .boxed())
    }
}

impl Redis {
    async fn append(&self, topic: &str, payloads: &[Value]) -> Result<(String, u64)> {
        let mut connection = self.connection.clone();
        let mut call = APPEND.prepare_invoke();
        call.key(self.stream_key()).key(self.key("events", "state"));
        call.arg(Uuid::new_v4().to_string()).arg(self.options.kept_events).arg(topic);
        for payload in payloads {
            call.arg(payload.to_string());
        }
        call.invoke_async(&mut connection).await.map_err(failed)
    }

    fn stream_key(&self) -> String {
        self.key("events", "stream")
    }

    /// A connection that may wait for an answer as long as a read blocks. It has a name in the server's list of clients.
    async fn connect_for_reading(&self) -> Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(BLOCK + TIMEOUT));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = connection.map_err(failed)?;
        let name = format!("{}:events", self.options.prefix).replace(|c: char| !c.is_ascii_graphic(), "_");
        let named = ::redis::cmd("CLIENT").arg("SETNAME").arg(name).exec_async(&mut connection).await;
        named.map_err(failed)?;
        Ok(connection)
    }
}

struct Subscriber {
    redis: Redis,
    /// `None` after it was lost.
    connection: Option<MultiplexedConnection>,
    run: String,
    /// Number of the last event seen.
    last: u64,
    ready: VecDeque<Result<Envelope>>,
}

impl Subscriber {
    /// `None` for a position that is not of this run.
    fn number_of(&self, position: &Position) -> Option<u64> {
        let (run, number) = position.0.split_once('/')?;
        let number = number.parse().ok().filter(|number| *number <= self.last)?;
        (run == self.run).then_some(number)
    }

    fn begin_anew(&mut self) {
        self.last = 0;
        let error = Error::of(code::EVENTS_LAGGED, "events were lost");
        self.ready.push_back(Err(error.with("reason", "the position is not of this run")));
    }

    async fn next(&mut self) -> Result<Envelope> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return item;
            }
            if let Err(error) = self.read().await {
                self.connection = None;
                return Err(error);
            }
        }
    }

    async fn connection(&mut self) -> Result<MultiplexedConnection> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        tokio::time::sleep(PAUSE).await;
        Ok(self.connection.insert(self.redis.connect_for_reading().await?).clone())
    }

    async fn read(&mut self) -> Result<()> {
        let mut connection = self.connection().await?;
        let reply: Option<StreamReadReply> = ::redis::cmd("XREAD")
            .arg("COUNT")
            .arg(BATCH)
            .arg("BLOCK")
            .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(0))
            .arg("STREAMS")
            .arg(self.redis.stream_key())
            .arg(format!("{}-0", self.last))
            .query_async(&mut connection)
            .await
            .map_err(failed)?;
        let entries: Vec<_> =
            reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids).collect();
        if entries.is_empty() {
            return self.check_run().await;
        }
        entries.into_iter().try_for_each(|entry| self.take(&entry))
    }

    /// Nothing new: or has the server lost its data, and counts from 1 again?
    async fn check_run(&mut self) -> Result<()> {
        let (run, last) = self.redis.append("", &[]).await?;
        if run != self.run || last < self.last {
            self.run = run;
            self.begin_anew();
        }
        Ok(())
    }

    fn take(&mut self, entry: &StreamId) -> Result<()> {
        let corrupt = || Error::of(code::COORD_FAILED, "an event cannot be read").with("id", &entry.id);
        let number =
            entry.id.strip_suffix("-0").and_then(|number| number.parse::<u64>().ok()).ok_or_else(corrupt)?;
        if number > self.last + 1 {
            let error = Error::of(code::EVENTS_LAGGED, "events were lost");
            self.ready.push_back(Err(error.with("lost", number - self.last - 1)));
        }
        self.last = number;
        let topic = entry.get("t").ok_or_else(corrupt)?;
        let payload: String = entry.get("p").ok_or_else(corrupt)?;
        let payload = serde_json::from_str(&payload).map_err(|error| corrupt().source(error))?;
        self.ready.push_back(Ok(Envelope {
            position: Position(format!("{}/{number}", self.run)),
            topic,
            payload,
        }));
        Ok(())
    }
}
