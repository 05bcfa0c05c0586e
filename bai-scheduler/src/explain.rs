//! Why a session waits: for programs as a value with a stable JSON form, for people as one sentence.
//!
//! ```
//! use bai_scheduler::explain::{NearestMiss, Shortfall};
//!
//! let miss = NearestMiss {
//!     agent: "i-one".into(),
//!     shortfalls: vec![Shortfall {
//!         slot: "cuda.device".into(),
//!         asked: "4".into(),
//!         free: "3".into(),
//!         capacity: "8".into(),
//!     }],
//! };
//! assert_eq!(miss.to_string(), "needs cuda.device 4; best agent has 3 free of 8");
//! ```

use std::fmt;

use bai_core::{AgentId, SessionId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::validate::Failure;

/// What kind of obstacle there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing is in the way: the next pass places it.
    Ready,
    /// Its start time has not come.
    Early,
    /// Sessions that it depends on have not ended.
    Dependent,
    /// A session that it depends on has failed: it will be cancelled.
    Doomed,
    /// A check failed; it may pass later.
    Checks,
    /// No agent could take it, not even an empty one.
    Impossible,
    /// No agent has room.
    NoRoom,
    /// There would be room, but it is kept for a session before it.
    HeldBack,
    /// Room is being made for it.
    Claimed,
}

/// Agents that were ruled out, by rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// `unavailable`, `architecture`, `image`, `designated`, `session-group`, `container-limit` or `resource`.
    pub rule: String,
    /// How many agents it ruled out.
    pub agents: u32,
}

/// A slot of which an agent has too little.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortfall {
    /// Name of the slot.
    pub slot: String,
    /// What is asked for.
    pub asked: String,
    /// What the agent has free; after a preemption it may owe some.
    pub free: String,
    /// What it has.
    pub capacity: String,
}

/// The agent that comes closest, and what it lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearestMiss {
    /// The agent.
    pub agent: AgentId,
    /// The slots that it lacks, most important first.
    pub shortfalls: Vec<Shortfall>,
}

impl fmt::Display for NearestMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, short) in self.shortfalls.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let Shortfall { slot, asked, free, capacity } = short;
            write!(f, "{comma}needs {slot} {asked}; best agent has {free} free of {capacity}")?;
        }
        Ok(())
    }
}

/// What has to happen before the session can start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum WaitsFor {
    /// The next pass.
    NextPass,
    /// A time.
    Time {
        /// When.
        at: Timestamp,
    },
    /// The success of other sessions.
    Sessions {
        /// Which.
        ids: Vec<SessionId>,
    },
    /// Other sessions of the same owner to end, or another limit.
    Limit {
        /// Name of the check.
        check: String,
    },
    /// A check that fails for another reason.
    Check {
        /// Its name.
        check: String,
    },
    /// Sessions on agents to end.
    Room,
    /// The session for which the room is kept.
    Reservation {
        /// That session.
        session: SessionId,
    },
    /// Sessions that are being pushed out.
    Victims {
        /// Which.
        ids: Vec<SessionId>,
    },
    /// Other agents, or another request: waiting does not help.
    Change,
}

/// Why a session waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What kind of obstacle there is.
    pub verdict: Verdict,
    /// Checks that passed, in their order.
    pub passed: Vec<String>,
    /// Checks that failed, in their order.
    pub failed: Vec<Failure>,
    /// Agents that were ruled out, by rule.
    pub rejections: Vec<Rejection>,
    /// The agent that comes closest.
    pub nearest: Option<NearestMiss>,
    /// For several kernels on agents of their own: how many find room, and how many there are.
    pub kernels: Option<(u32, u32)>,
    /// What has to happen.
    pub waits_for: WaitsFor,
    /// When it starts at the latest, if that is known.
    pub estimate: Option<Timestamp>,
}

impl Explanation {
    /// The obstacle in one sentence.
    pub fn sentence(&self) -> String {
        if !self.failed.is_empty() {
            let messages: Vec<_> = self.failed.iter().map(|failure| failure.message.as_str()).collect();
            return messages.join("; ");
        }
        match (&self.verdict, &self.waits_for) {
            (Verdict::Ready, _) => "the next pass places it".to_owned(),
            (Verdict::HeldBack, WaitsFor::Reservation { session }) => {
                format!("the room that is free is kept for session {session}, which is before it")
            }
            (Verdict::HeldBack, _) => "a session before it waits, and none may overtake".to_owned(),
            (Verdict::Claimed, WaitsFor::Victims { ids }) => {
                format!("waits for {} sessions to make room", ids.len())
            }
            _ => self.shortage(),
        }
    }

    fn shortage(&self) -> String {
        let which = self.kernels.map_or_else(String::new, |(placed, of)| {
            format!("kernel {} of {of}: ", placed.saturating_add(1))
        });
        if let Some(nearest) = &self.nearest {
            return format!("{which}{nearest}");
        }
        let rules: Vec<_> = self
            .rejections
            .iter()
            .map(|rejection| format!("{} by {}", rejection.agents, rejection.rule))
            .collect();
        if rules.is_empty() {
            return "no agent is available in the resource group".to_owned();
        }
        format!("{which}no agent will do (ruled out: {})", rules.join(", "))
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())
    }
}

/// Why the agents have no room for a request, whoever asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RoomReport {
    /// There is room, reservations left aside.
    pub(crate) fits: bool,
    pub(crate) rejections: Vec<Rejection>,
    pub(crate) nearest: Option<NearestMiss>,
    pub(crate) kernels: Option<(u32, u32)>,
}
