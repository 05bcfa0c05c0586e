//! Sessions of a group, those that wait in lanes.
//!
//! A lane holds the waiting sessions of one priority, one owner and one request. They differ in nothing that decides
//! whether they can start now, so when the first one of a lane cannot, none can, and a pass goes on with the next lane.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bai_core::{AgentId, SessionId};
use smallvec::SmallVec;

use crate::explain::Verdict;
use crate::model::{Dependency, SessionGroup};
use crate::request::RequestNo;
use crate::room::AgentNo;
use crate::slots::Amounts;

/// Number of a session.
pub(crate) type SessionNo = u32;
/// Number of a lane.
pub(crate) type LaneNo = u32;
/// Place of a session in its lane.
pub(crate) type Seat = (i64, SessionId, SessionNo);

/// One session. Kept small: there may be a hundred thousand that wait.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: SessionId,
    pub(crate) created_at: i64,
    pub(crate) owner: u32,
    pub(crate) request: RequestNo,
    pub(crate) priority: i32,
    pub(crate) job_priority: i32,
    pub(crate) preemptible: bool,
    /// Whether the reason why it waits has been told.
    pub(crate) told: bool,
    pub(crate) state: State,
    /// What few sessions have.
    pub(crate) extras: Option<Box<Extras>>,
}

/// Where a session is.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// Waits in a lane.
    Queued(LaneNo),
    /// Waits for its start time.
    Early,
    /// Waits for other sessions.
    Dependent,
    /// Waits to be cancelled: a session that it depends on has failed.
    Doomed,
    /// Holds agents.
    Held(Box<Held>),
    /// Waits for its victims to end.
    Claimed(Box<Stake>),
}

/// What few sessions have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extras {
    pub(crate) starts_at: Option<i64>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) preferred: Vec<AgentId>,
    pub(crate) avoid: Vec<AgentId>,
    pub(crate) group: Option<SessionGroup>,
    /// It does not look for victims before.
    pub(crate) no_preemption_before: Option<i64>,
}

/// A part of an agent that a session holds.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) agent: AgentNo,
    pub(crate) amount: Arc<Amounts>,
}

/// What a session holds.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) since: i64,
    /// [`NEVER`](crate::room::NEVER) when it is not known.
    pub(crate) ends: i64,
    /// One for all kernels or one for each.
    pub(crate) parts: SmallVec<[Part; 1]>,
    /// Kernels that have ended.
    pub(crate) ended: Vec<usize>,
    /// What counts against the owner's limits.
    pub(crate) charged: Arc<Amounts>,
    /// Whether it counts against the owner's limits.
    pub(crate) counted: bool,
}

/// What is kept for a session whose victims still end.
#[derive(Debug, Clone)]
pub(crate) struct Stake {
    pub(crate) parts: SmallVec<[Part; 1]>,
    pub(crate) victims: Vec<SessionId>,
    pub(crate) since: i64,
    pub(crate) expires: i64,
    /// A plan of this group has named the victims.
    pub(crate) named: bool,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    pub(crate) priority: i32,
    pub(crate) owner: u32,
    pub(crate) request: RequestNo,
    /// In the order of service.
    pub(crate) seats: BTreeSet<Seat>,
    /// Waits for the owner to use less.
    pub(crate) parked: bool,
    /// The last reason that was told.
    pub(crate) told: Option<Verdict>,
}

/// All sessions of a group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    entries: Vec<Option<Entry>>,
    vacant: Vec<SessionNo>,
    by_id: HashMap<SessionId, SessionNo>,
    lanes: Vec<Option<Lane>>,
    vacant_lanes: Vec<LaneNo>,
    by_key: HashMap<(i32, u32, RequestNo), LaneNo>,
    bands: BTreeMap<Reverse<i32>, BTreeSet<LaneNo>>,
    /// By start time.
    pub(crate) early: BTreeSet<(i64, SessionNo)>,
    /// Who waits for whom.
    pub(crate) children: BTreeMap<SessionId, Vec<SessionNo>>,
    pub(crate) doomed: BTreeSet<SessionId>,
    /// By the time of the claim.
    pub(crate) claims: BTreeSet<(i64, SessionId)>,
    /// Victims of these claims, and of how many.
    victims: BTreeMap<SessionId, u32>,
    /// Sessions whose reason to wait has not been told.
    pub(crate) fresh: Vec<SessionNo>,
    queued: usize,
}

impl Queue {
    pub(crate) fn find(&self, id: SessionId) -> Option<SessionNo> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn get(&self, number: SessionNo) -> Option<&Entry> {
        self.entries.get(number as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: SessionNo) -> Option<&mut Entry> {
        self.entries.get_mut(number as usize)?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionNo, &Entry)> {
        (0..).zip(&self.entries).filter_map(|(number, entry)| Some((number, entry.as_ref()?)))
    }

    pub(crate) fn insert(&mut self, entry: Entry) -> SessionNo {
        let fresh = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let number = self.vacant.pop().unwrap_or(fresh);
        self.by_id.insert(entry.id, number);
        if number == fresh {
            self.entries.push(Some(entry));
        } else {
            self.entries[number as usize] = Some(entry);
        }
        number
    }

    /// Forgets a session that is in no lane any more.
    pub(crate) fn remove(&mut self, number: SessionNo) -> Option<Entry> {
        let entry = self.entries.get_mut(number as usize)?.take()?;
        self.by_id.remove(&entry.id);
        self.vacant.push(number);
        Some(entry)
    }

    /// Sessions in lanes.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    pub(crate) fn lane(&self, number: LaneNo) -> Option<&Lane> {
        self.lanes.get(number as usize)?.as_ref()
    }

    pub(crate) fn lane_mut(&mut self, number: LaneNo) -> Option<&mut Lane> {
        self.lanes.get_mut(number as usize)?.as_mut()
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = (LaneNo, &Lane)> {
        (0..).zip(&self.lanes).filter_map(|(number, lane)| Some((number, lane.as_ref()?)))
    }

    pub(crate) fn priorities(&self) -> Vec<Reverse<i32>> {
        self.bands.keys().copied().collect()
    }

    pub(crate) fn band(&self, priority: Reverse<i32>) -> impl Iterator<Item = (LaneNo, &Lane)> {
        let lanes = self.bands.get(&priority).into_iter().flatten();
        lanes.filter_map(|number| Some((*number, self.lane(*number)?)))
    }

    /// Puts a session into its lane.
    pub(crate) fn enqueue(&mut self, number: SessionNo, position: i64) {
        let Some(entry) = self.get(number) else { return };
        let (id, key) = (entry.id, (entry.priority, entry.owner, entry.request));
        let lane = self.lane_of(key);
        if let Some(entry) = self.get_mut(number) {
            entry.state = State::Queued(lane);
        }
        self.seat(lane, (position, id, number));
    }

    /// Gives a session its seat in a lane.
    pub(crate) fn seat(&mut self, lane: LaneNo, seat: Seat) {
        if let Some(lane) = self.lane_mut(lane)
            && lane.seats.insert(seat)
        {
            self.queued += 1;
        }
    }

    /// Takes a session out of its lane.
    pub(crate) fn unseat(&mut self, lane: LaneNo, seat: Seat) {
        if let Some(lane) = self.lane_mut(lane)
            && lane.seats.remove(&seat)
        {
            self.queued -= 1;
        }
    }

    /// Forgets a lane in which nobody sits.
    pub(crate) fn tidy(&mut self, number: LaneNo) {
        let Some(lane) = self.lane(number).filter(|lane| lane.seats.is_empty()) else { return };
        let (priority, owner, request) = (lane.priority, lane.owner, lane.request);
        self.by_key.remove(&(priority, owner, request));
        self.lanes[number as usize] = None;
        self.vacant_lanes.push(number);
        if let Some(band) = self.bands.get_mut(&Reverse(priority)) {
            band.remove(&number);
            if band.is_empty() {
                self.bands.remove(&Reverse(priority));
            }
        }
    }

    fn lane_of(&mut self, key: (i32, u32, RequestNo)) -> LaneNo {
        if let Some(number) = self.by_key.get(&key) {
            return *number;
        }
        let (priority, owner, request) = key;
        let fresh = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX);
        let number = self.vacant_lanes.pop().unwrap_or(fresh);
        if number == fresh {
            self.lanes.push(None);
        }
        let seats = BTreeSet::new();
        self.lanes[number as usize] =
            Some(Lane { priority, owner, request, seats, parked: false, told: None });
        self.by_key.insert(key, number);
        self.bands.entry(Reverse(priority)).or_default().insert(number);
        number
    }

    /// These have to go for one claim more, or one less.
    pub(crate) fn count_victims(&mut self, victims: &[SessionId], more: bool) {
        for victim in victims {
            let claims = self.victims.entry(*victim).or_default();
            *claims = if more { claims.saturating_add(1) } else { claims.saturating_sub(1) };
            if *claims == 0 {
                self.victims.remove(victim);
            }
        }
    }

    /// Whether a session has to go for some claim.
    pub(crate) fn has_to_go(&self, session: SessionId) -> bool {
        self.victims.contains_key(&session)
    }

    pub(crate) fn unpark(&mut self, lanes: impl IntoIterator<Item = LaneNo>) {
        for number in lanes {
            if let Some(lane) = self.lane_mut(number) {
                lane.parked = false;
            }
        }
    }
}
