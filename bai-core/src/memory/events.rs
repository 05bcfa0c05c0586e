//! Events in a ring of one process.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;

use crate::error::{Error, Result, code};
use crate::port::Events;
use crate::port::events::{Envelope, From, Position};

/// How many events the ring keeps when nothing else is said.
const DEFAULT_CAPACITY: usize = 65_536;

/// Publish and subscribe within one process. Clones share the ring; subscriptions end with the last clone.
#[derive(Debug, Clone)]
pub struct MemoryEvents {
    ring: Arc<Mutex<Ring>>,
    /// Tells subscribers that there is something new.
    published: watch::Sender<()>,
}

#[derive(Debug)]
struct Ring {
    /// Distinguishes positions of this ring from those of an earlier run.
    incarnation: Uuid,
    capacity: usize,
    /// Number of the first event kept; they are counted from 0.
    first: u64,
    kept: VecDeque<(String, Value)>,
}

/// What a subscriber finds when it looks.
enum Look {
    Event(Envelope),
    Lagged { lost: u64 },
    Nothing,
}

impl MemoryEvents {
    /// Keeps the last 65,536 events.
    pub fn new() -> Self {
        Self::with_capacity(DEFAULT_CAPACITY)
    }

    /// Keeps the last `capacity` events, at least one.
    pub fn with_capacity(capacity: usize) -> Self {
        let ring =
            Ring { incarnation: Uuid::new_v4(), capacity: capacity.max(1), first: 0, kept: VecDeque::new() };
        Self { ring: Arc::new(Mutex::new(ring)), published: watch::Sender::new(()) }
    }
}

impl Default for MemoryEvents {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Events for MemoryEvents {
    async fn publish(&self, topic: &str, payloads: &[Value]) -> Result<()> {
        self.ring.lock().append(topic, payloads);
        self.published.send_replace(());
        Ok(())
    }

    async fn subscribe(&self, from: From) -> Result<BoxStream<'static, Result<Envelope>>> {
        let next = {
            let ring = self.ring.lock();
            match from {
                From::Now => Some(ring.end()),
                From::After(position) => ring.after(&position),
            }
        };
        let subscriber = Subscriber { ring: self.ring.clone(), published: self.published.subscribe(), next };
        Ok(stream::unfold(subscriber, |mut subscriber| async move {
            let item = subscriber.next().await?;
            Some((item, subscriber))
        })
        .boxed())
    }
}

impl Ring {
    fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    fn append(&mut self, topic: &str, payloads: &[Value]) {
        for payload in payloads {
            if self.kept.len() == self.capacity {
                self.kept.pop_front();
                self.first += 1;
            }
            self.kept.push_back((topic.to_owned(), payload.clone()));
        }
    }

    /// The number after a position; `None` for a position that is not of this ring.
    fn after(&self, position: &Position) -> Option<u64> {
        let (incarnation, number) = position.0.split_once('/')?;
        let number = number.parse::<u64>().ok().filter(|number| *number < self.end())?;
        (incarnation == self.incarnation.to_string()).then_some(number + 1)
    }

    fn look(&self, next: u64) -> Look {
        if next < self.first {
            return Look::Lagged { lost: self.first - next };
        }
        let found = usize::try_from(next - self.first).ok().and_then(|index| self.kept.get(index));
        found.map_or(Look::Nothing, |(topic, payload)| {
            Look::Event(Envelope {
                position: Position(format!("{}/{next}", self.incarnation)),
                topic: topic.clone(),
                payload: payload.clone(),
            })
        })
    }
}

struct Subscriber {
    ring: Arc<Mutex<Ring>>,
    published: watch::Receiver<()>,
    /// `None` until told that everything since a foreign position is lost.
    next: Option<u64>,
}

impl Subscriber {
    async fn next(&mut self) -> Option<Result<Envelope>> {
        let Some(next) = self.next else {
            self.next = Some(self.ring.lock().first);
            return Some(Err(lagged().with("reason", "the position is not of this run")));
        };
        loop {
            self.published.mark_unchanged();
            let look = {
                let ring = self.ring.lock();
                let look = ring.look(next);
                if matches!(look, Look::Lagged { .. }) {
                    self.next = Some(ring.first);
                }
                look
            };
            match look {
                Look::Event(envelope) => {
                    self.next = Some(next + 1);
                    return Some(Ok(envelope));
                }
                Look::Lagged { lost } => return Some(Err(lagged().with("lost", lost))),
                Look::Nothing => self.published.changed().await.ok()?,
            }
        }
    }
}

fn lagged() -> Error {
    Error::of(code::EVENTS_LAGGED, "events were lost")
}
