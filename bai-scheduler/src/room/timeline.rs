//! When room becomes free: the future of one agent, from the ends that are known.
//!
//! ```text
//!   free
//!    │          ┌────────┐         ┌───────
//!    │     ┌────┘        └─────────┘
//!    │─────┘   ▲         ▲         ▲
//!    └─────────┼─────────┼─────────┼──────► time
//!              end of    start and end of a reservation
//! ```
//!
//! Ends that are not known never come. An end that is overdue comes a microsecond from now.

use smallvec::SmallVec;

use crate::slots::{Amounts, Units};

use super::{AgentNo, Room, Run};

/// The time that never comes.
pub(crate) const NEVER: i64 = i64::MAX;

/// Room that somebody will need, in microseconds since the epoch.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) amount: Amounts,
}

/// Free room from an instant on.
struct Step {
    at: i64,
    row: Vec<Units>,
}

impl Room {
    /// Starts a pass: without reservations, at `now`.
    pub(crate) fn begin(&mut self, now: i64) {
        self.now = now;
    }

    /// Ends a pass: its reservations are forgotten.
    pub(crate) fn end(&mut self) {
        for agent in std::mem::take(&mut self.holds).into_keys() {
            self.view.row_mut(agent).copy_from_slice(self.free.row(agent));
            self.log.push(agent);
        }
    }

    /// Agents with reservations.
    pub(crate) fn reserved(&self) -> impl Iterator<Item = AgentNo> + '_ {
        self.holds.keys().copied()
    }

    pub(crate) fn is_reserved(&self, agent: AgentNo) -> bool {
        self.holds.contains_key(&agent)
    }

    /// Keeps room of an agent for later. A hold that starts at [`NEVER`] has no known start: all of the room that there is
    /// already is kept from now on, as far as it is needed.
    pub(crate) fn reserve(&mut self, agent: AgentNo, mut hold: Hold) {
        if hold.from == NEVER {
            let mut clipped = Amounts::default();
            for (slot, units) in hold.amount.iter() {
                let free = self.view.row(agent).get(slot.index()).copied().unwrap_or(0);
                clipped.add(slot, units.min(free.max(0)));
            }
            hold = Hold { from: self.now, to: NEVER, amount: clipped };
        }
        self.holds.entry(agent).or_default().push(hold);
        self.refresh(agent);
    }

    /// Recomputes the view of a reserved agent: the least that is free at any time from now on.
    pub(super) fn refresh(&mut self, agent: AgentNo) {
        if self.holds.contains_key(&agent) {
            let least = self.least(agent, NEVER);
            self.view.row_mut(agent).copy_from_slice(&least);
        }
        self.log.push(agent);
    }

    /// Whether an agent has this much from now until `until`, its reservations respected.
    pub(crate) fn fits_until(&self, agent: AgentNo, need: &Amounts, until: i64) -> bool {
        need.fits(self.free.row(agent)) && need.fits(&self.least(agent, until))
    }

    /// The soonest time from which an agent has `need` for `length` microseconds, as far as ends are known.
    pub(crate) fn soonest(&self, agent: AgentNo, need: &Amounts, length: i64, before: i64) -> Option<i64> {
        if self.holds.contains_key(&agent) {
            return self.soonest_between_holds(agent, need, length).filter(|at| *at < before);
        }
        if need.fits(self.free.row(agent)) {
            return Some(self.now);
        }
        let soonest_end = self.runs(agent).first().map_or(NEVER, |run| self.end_of(run));
        if soonest_end == NEVER || soonest_end >= before || !need.fits(self.capacity.row(agent)) {
            return None;
        }
        let mut free: SmallVec<[Units; 8]> = SmallVec::from_slice(self.free.row(agent));
        for run in self.runs(agent) {
            let at = self.end_of(run);
            if at == NEVER || at >= before {
                return None;
            }
            run.amount.add_to(&mut free);
            if need.fits(&free) {
                return Some(at);
            }
        }
        None
    }

    fn soonest_between_holds(&self, agent: AgentNo, need: &Amounts, length: i64) -> Option<i64> {
        let steps = self.steps(agent);
        let mut start: Option<i64> = None;
        for step in &steps {
            if let Some(start) = start
                && step.at >= start.saturating_add(length)
            {
                return Some(start);
            }
            start = if need.fits(&step.row) { start.or(Some(step.at)) } else { None };
        }
        start
    }

    /// The least that is free of an agent from now until `until`.
    fn least(&self, agent: AgentNo, until: i64) -> Vec<Units> {
        let holds = self.holds.get(&agent).map_or(&[][..], Vec::as_slice);
        // There is never less than before but where a reservation starts.
        let starts = holds.iter().map(|hold| hold.from).filter(|from| *from > self.now && *from < until);
        let mut least = self.free_at(agent, holds, self.now);
        for start in starts {
            let row = self.free_at(agent, holds, start);
            least.iter_mut().zip(&row).for_each(|(least, free)| *least = (*least).min(*free));
        }
        least
    }

    /// What is free of an agent, from each instant at which it changes.
    fn steps(&self, agent: AgentNo) -> Vec<Step> {
        let holds = self.holds.get(&agent).map_or(&[][..], Vec::as_slice);
        let ends = self.runs(agent).iter().map(|run| self.end_of(run));
        let holds_change = holds.iter().flat_map(|hold| [hold.from.max(self.now), hold.to]);
        let mut times: Vec<_> = ends.chain(holds_change).filter(|at| *at != NEVER).collect();
        times.push(self.now);
        times.sort_unstable();
        times.dedup();
        times.into_iter().map(|at| Step { at, row: self.free_at(agent, holds, at) }).collect()
    }

    /// An end that is overdue comes next, but what it holds is not free yet.
    fn end_of(&self, run: &Run) -> i64 {
        run.ends.max(self.now.saturating_add(1))
    }

    fn free_at(&self, agent: AgentNo, holds: &[Hold], at: i64) -> Vec<Units> {
        let mut row = self.free.row(agent).to_vec();
        let ended = self.runs(agent).iter().take_while(|run| self.end_of(run) <= at);
        ended.for_each(|run| run.amount.add_to(&mut row));
        let held = holds.iter().filter(|hold| hold.from <= at && at < hold.to);
        held.for_each(|hold| hold.amount.take_from(&mut row));
        row
    }

    /// Free room of an agent at an instant to come, without reservations.
    pub(crate) fn free_later(&self, agent: AgentNo, at: i64) -> Vec<Units> {
        self.free_at(agent, self.holds.get(&agent).map_or(&[][..], Vec::as_slice), at)
    }
}
