//! Changes.

use bai_core::{AgentId, SessionId, Timestamp};

use super::{Agent, Claim, Holder, Limits, Running, Session, UsageSlice};
use crate::{GivenUp, Options};

/// Something that has happened. Each delta may come twice: the second one changes nothing.
#[derive(Debug, Clone)]
pub enum Delta {
    /// An agent is there, or has changed in any way.
    Agent(Box<Agent>),
    /// An agent takes new sessions, or no longer (health, cordon).
    AgentSchedulable(AgentId, bool),
    /// An agent is gone. What it held stays in the books until its sessions end.
    AgentLeft(AgentId),
    /// A session waits.
    Enqueued(Box<Session>),
    /// The priority of a waiting session is another one.
    Prioritised(SessionId, i32),
    /// A waiting session has this claim by what is recorded: told by somebody else, or after it was taken back in error.
    Claimed(SessionId, Box<Claim>),
    /// A waiting session has no claim any more by what is recorded, and waits on.
    GivenUp(GivenUp),
    /// A session holds agents: read at start-up, or placed by somebody else.
    Holds(Box<Running>),
    /// A session that was placed has started: its end may be known now.
    Started {
        /// The session.
        session: SessionId,
        /// When.
        at: Timestamp,
        /// When it ends at the latest, if that is known.
        ends_at: Option<Timestamp>,
    },
    /// One kernel of a session, by its position, has ended; its room is free.
    KernelEnded(SessionId, usize),
    /// A session is being ended: it holds its agents until [`Delta::Ended`], but counts against no limit any more.
    Leaving(SessionId),
    /// A session holds nothing and waits for nothing any more.
    Ended(SessionId, Outcome),
    /// A session that was placed, reserved or preempted waits again (lost race, failed start, rescheduling): the agents, if
    /// any, failed to start it.
    Requeued(SessionId, Vec<AgentId>),
    /// Another holder's limits, or new ones.
    Limits(Holder, Box<Limits>),
    /// What a holder uses in other resource groups, which counts against its limits too: amounts, sessions that are not
    /// private, and private ones.
    UsedElsewhere(Holder, bai_core::slots::ResourceSlots, [u32; 2]),
    /// The past usage of a holder, all of it.
    History(Holder, Vec<UsageSlice>),
    /// The weight of a holder in the fair share, in thousandths.
    Weight(Holder, u32),
    /// A session elsewhere, on which others depend, has come to its end.
    Dependency(SessionId, Outcome),
    /// The agent that round robin used last, by architecture: read at start-up.
    LastUsed(String, AgentId),
    /// Other options of the resource group.
    Options(Box<Options>),
}

/// How a session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With success: what depends on it may start.
    Succeeded,
    /// In any other way, a cancellation included: what depends on it never will.
    Failed,
}
