//! Events: hints that something changed. Losing one costs latency, never correctness.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

use crate::error::Result;

/// A place in the stream of events, to resume from. Opaque and ordered only by its back end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub String);

/// Where a subscription starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// With the next event published after `subscribe` returns.
    Now,
    /// With the first event after this one.
    After(Position),
}

/// An event with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Place of this event.
    pub position: Position,
    /// Topic, such as `session` or `agent`.
    pub topic: String,
    /// Content.
    pub payload: Value,
}

/// Publish and subscribe. All implementations pass `bai_testkit::events`.
#[async_trait]
pub trait Events: fmt::Debug + Send + Sync + 'static {
    /// Appends events to the topic, in order.
    ///
    /// # Errors
    /// `Unavailable` when the back end cannot be reached.
    async fn publish(&self, topic: &str, payloads: &[Value]) -> Result<()>;

    /// All events of all topics from a place on, in the order of publication. A subscriber that falls behind what
    /// the back end keeps receives one `Conflict` ([`crate::error::code::EVENTS_LAGGED`]) error in place of what it lost and
    /// then goes on with what is still there.
    ///
    /// # Errors
    /// `Unavailable` when the back end cannot be reached.
    async fn subscribe(&self, from: From) -> Result<BoxStream<'static, Result<Envelope>>>;
}
