//! One subscription, on a connection of its own.

use std::collections::VecDeque;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::streams::{StreamId, StreamReadReply};
use bai_core::error::{Error, Result, code};
use bai_core::port::events::{Envelope, From};
use futures_util::stream::{self, BoxStream, StreamExt};

use super::Place;
use crate::redis::{Redis, TIMEOUT, failed};

/// How long one read waits for events before it looks whether our numbers have gone back.
const BLOCK: Duration = Duration::from_secs(2);

/// Most events of one read.
const BATCH: usize = 256;

/// Pause before connecting again.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Subscriber {
    redis: Redis,
    /// `None` after it was lost.
    connection: Option<MultiplexedConnection>,
    /// Place of the last event seen; `None` before all events, wherever they begin.
    last: Option<Place>,
    ready: VecDeque<Result<Envelope>>,
}

impl Subscriber {
    pub(super) async fn open(redis: Redis, from: From) -> Result<Self> {
        let last = redis.last_place().await?;
        let connection = connect(&redis).await?;
        let mut subscriber =
            Self { redis, connection: Some(connection), last: Some(last), ready: VecDeque::new() };
        if let From::After(position) = from {
            match Place::parse(&position).filter(|place| place.is_up_to(last)) {
                Some(place) => subscriber.last = Some(place),
                None => subscriber.begin_anew(),
            }
        }
        Ok(subscriber)
    }

    /// The events. Only a read that is awaited talks to the server; dropping the stream closes the connection.
    pub(super) fn into_stream(self) -> BoxStream<'static, Result<Envelope>> {
        stream::unfold(self, |mut subscriber| async move {
            let item = subscriber.next().await;
            Some((item, subscriber))
        })
        .boxed()
    }

    fn begin_anew(&mut self) {
        self.last = None;
        self.ready.push_back(Err(lagged().with("reason", "the position is not of this server")));
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
        Ok(self.connection.insert(connect(&self.redis).await?).clone())
    }

    async fn read(&mut self) -> Result<()> {
        let mut connection = self.connection().await?;
        let after = self.last.map_or_else(|| "0-0".to_owned(), |place| place.to_string());
        let reply: Option<StreamReadReply> = ::redis::cmd("XREAD")
            .arg("COUNT")
            .arg(BATCH)
            .arg("BLOCK")
            .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(0))
            .arg("STREAMS")
            .arg(self.redis.stream_key())
            .arg(after)
            .query_async(&mut connection)
            .await
            .map_err(failed)?;
        let mut entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids).peekable();
        if entries.peek().is_none() {
            return self.check_place().await;
        }
        entries.try_for_each(|entry| self.take(&entry))
    }

    /// Nothing new: or is it, as the server has lost its data and its clock has gone back?
    async fn check_place(&mut self) -> Result<()> {
        let newest = self.redis.last_place().await?;
        if self.last.is_some_and(|last| !last.is_up_to(newest)) {
            self.begin_anew();
        }
        Ok(())
    }

    fn take(&mut self, entry: &StreamId) -> Result<()> {
        let corrupt = || Error::of(code::COORD_FAILED, "an event cannot be read").with("id", &entry.id);
        let place = Place::new(&entry.id, entry.get("n").ok_or_else(corrupt)?)?;
        if let Some(last) = self.last.replace(place).filter(|last| last.number + 1 != place.number) {
            let lost = place.number.saturating_sub(last.number + 1);
            self.ready.push_back(Err(lagged().with("lost", lost)));
        }
        let topic = entry.get("t").ok_or_else(corrupt)?;
        let payload: String = entry.get("p").ok_or_else(corrupt)?;
        let payload = serde_json::from_str(&payload).map_err(|error| corrupt().source(error))?;
        self.ready.push_back(Ok(Envelope { position: place.position(), topic, payload }));
        Ok(())
    }
}

/// A connection that may wait for an answer as long as a read blocks. It has a name in the server's list of clients.
async fn connect(redis: &Redis) -> Result<MultiplexedConnection> {
    let connecting = async {
        let mut connection = redis.shared.connect(BLOCK + TIMEOUT).await?;
        let name = format!("{}:events", redis.options.prefix).replace(|c: char| !c.is_ascii_graphic(), "_");
        ::redis::cmd("CLIENT").arg("SETNAME").arg(name).exec_async(&mut connection).await?;
        Ok(connection)
    };
    match tokio::time::timeout(TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(failed),
        Err(_) => Err(Error::of(code::COORD_FAILED, "Redis did not answer in time")),
    }
}

fn lagged() -> Error {
    Error::of(code::EVENTS_LAGGED, "events were lost")
}
