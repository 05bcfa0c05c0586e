//! What a pass decides.

use std::sync::Arc;

use bai_core::{AgentId, SessionId, Timestamp};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::explain::Explanation;
use crate::model::Claim;

/// The decisions of one pass. The group takes it for granted that they are carried out; what is not must be reported with
/// [`Delta::Requeued`](crate::Delta::Requeued) (a placement that lost a race, a preemption that is not recorded), which frees what the
/// session holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Sessions to start, in the order they were served.
    pub placements: Vec<Placement>,
    /// Room kept for sessions that wait, in the order they were served. It informs: nothing has to be done.
    pub reservations: Vec<Reservation>,
    /// Sessions to push out.
    pub preemptions: Vec<Preempted>,
    /// Claims that have come to nothing: their sessions wait as before.
    pub given_up: Vec<GivenUp>,
    /// Waiting sessions that can never start and are to be cancelled.
    pub cancellations: Vec<Cancellation>,
    /// Waiting sessions of which there is news: they are new, or wait for another reason than before.
    pub unplaced: Vec<Unplaced>,
    /// When the next pass is due even if nothing happens before.
    pub wake_at: Option<Timestamp>,
}

/// A session that gets its agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The session.
    pub session: SessionId,
    /// One agent per kernel.
    pub agents: Vec<AgentId>,
}

/// Room that is kept for a session that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The session.
    pub session: SessionId,
    /// The agents on which room is kept, in the order of the ids.
    pub agents: Vec<AgentId>,
    /// When it can start at the latest, if the ends of the sessions in its way are known.
    pub starts_at: Option<Timestamp>,
}

/// Sessions that have to go so that another one can start.
///
/// Its [`claim`](Self::claim) is to be recorded before any of them is ended, and told with the [session](crate::Session::claim) to a
/// group that is built afresh. That one names the preemption once more, with those that still have to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preempted {
    /// The one that gets the room. It holds it from now on and is placed as soon as the victims have ended.
    pub beneficiary: SessionId,
    /// One agent per kernel of the beneficiary.
    pub agents: Vec<AgentId>,
    /// Those that go.
    pub victims: Vec<SessionId>,
    /// How long they have to end by themselves.
    #[serde(with = "seconds")]
    pub grace: TimeDelta,
    /// When this was decided.
    pub since: Timestamp,
    /// The room is given up when the victims have not ended by then.
    pub expires: Timestamp,
}

impl Preempted {
    /// What the beneficiary gets.
    pub fn claim(&self) -> Claim {
        let Self { agents, victims, since, expires, .. } = self;
        Claim { agents: agents.clone(), victims: victims.clone(), since: *since, expires: *expires }
    }
}

/// A claim that has come to nothing: its victims have not gone in time, or its agents have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// The session that had it.
    pub session: SessionId,
    /// It pushes nobody out before; see [`Session::no_preemption_before`](crate::Session::no_preemption_before).
    pub again_at: Timestamp,
}

/// A session that can never start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    /// The session.
    pub session: SessionId,
    /// Short reason for programs.
    pub reason: String,
    /// The reason in words.
    pub message: String,
}

/// A session that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unplaced {
    /// The session.
    pub session: SessionId,
    /// Place in the queue from 0; `None` for a session that is not in it yet (start time, dependencies).
    pub position: Option<u32>,
    /// Why; sessions with the same request and owner share it.
    pub explanation: Arc<Explanation>,
}

mod seconds {
    use chrono::TimeDelta;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(delta: &TimeDelta, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(delta.num_seconds())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TimeDelta, D::Error> {
        i64::deserialize(deserializer).map(TimeDelta::seconds)
    }
}
