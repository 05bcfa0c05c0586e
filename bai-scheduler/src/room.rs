//! The books: what every agent has, what of it is free, and who holds the rest until when.
//!
//! Three rows of amounts per agent, indexed by slot:
//!
//! | row | meaning |
//! |---|---|
//! | `capacity` | what it has, over-commit and alignment applied |
//! | `free` | capacity less what sessions hold and what is claimed for a session whose victims still end |
//! | `view` | what a session of unknown length may take: `free`, less what reservations of this pass need later |
//!
//! Outside of a pass `view` equals `free`. Every change of a view is noted in a log, from which the [orders](order) of the
//! agents catch up when they are used next; every agent with more room than before is noted as grown, which is what wakes
//! the requests that found no room.

pub(crate) mod order;
mod timeline;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::slots::{Amounts, Units};

pub(crate) use timeline::{Hold, NEVER};

/// Number of an agent.
pub(crate) type AgentNo = u32;

/// Rows of amounts, one after another.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    count: usize,
    width: usize,
    cells: Vec<Units>,
}

impl Rows {
    pub(crate) fn row(&self, at: AgentNo) -> &[Units] {
        let start = at as usize * self.width;
        self.cells.get(start..start + self.width).unwrap_or(&[])
    }

    pub(crate) fn row_mut(&mut self, at: AgentNo) -> &mut [Units] {
        let start = at as usize * self.width;
        self.cells.get_mut(start..start + self.width).unwrap_or(&mut [])
    }

    fn push(&mut self) {
        self.count += 1;
        self.cells.resize(self.count * self.width, 0);
    }

    /// Makes room for slots that are new.
    fn widen(&mut self, width: usize) {
        if width <= self.width {
            return;
        }
        let mut wide = Self { count: self.count, width, cells: vec![0; self.count * width] };
        if self.width > 0 {
            for (new, old) in wide.cells.chunks_mut(width).zip(self.cells.chunks(self.width)) {
                new[..self.width].copy_from_slice(old);
            }
        }
        *self = wide;
    }
}

/// What one session holds of one agent.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// Microseconds since the epoch; [`NEVER`] when it is not known.
    pub(crate) ends: i64,
    pub(crate) session: u32,
    pub(crate) amount: Arc<Amounts>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room {
    capacity: Rows,
    free: Rows,
    view: Rows,
    /// By agent, the soonest end first.
    runs: Vec<Vec<Run>>,
    /// Reservations of the pass that is being made.
    holds: BTreeMap<AgentNo, Vec<Hold>>,
    now: i64,
    /// Counts changes of `free`.
    version: u64,
    log: Vec<AgentNo>,
    grown: Vec<AgentNo>,
}

impl Room {
    pub(crate) fn push_agent(&mut self) {
        self.capacity.push();
        self.free.push();
        self.view.push();
        self.runs.push(Vec::new());
    }

    pub(crate) fn widen(&mut self, width: usize) {
        self.capacity.widen(width);
        self.free.widen(width);
        self.view.widen(width);
    }

    pub(crate) fn capacity(&self, agent: AgentNo) -> &[Units] {
        self.capacity.row(agent)
    }

    pub(crate) fn free(&self, agent: AgentNo) -> &[Units] {
        self.free.row(agent)
    }

    pub(crate) fn view(&self, agent: AgentNo) -> &[Units] {
        self.view.row(agent)
    }

    pub(crate) fn runs(&self, agent: AgentNo) -> &[Run] {
        self.runs.get(agent as usize).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn set_capacity(&mut self, agent: AgentNo, amounts: &Amounts) {
        let old = self.capacity.row(agent).to_vec();
        let capacity = self.capacity.row_mut(agent);
        capacity.fill(0);
        amounts.add_to(capacity);
        let change: Vec<Units> = capacity.iter().zip(&old).map(|(new, old)| new - old).collect();
        for row in [self.free.row_mut(agent), self.view.row_mut(agent)] {
            row.iter_mut().zip(&change).for_each(|(cell, change)| *cell += change);
        }
        self.grew(agent);
        self.changed(agent);
    }

    /// A session gets part of an agent.
    pub(crate) fn take(&mut self, agent: AgentNo, run: Run) {
        run.amount.take_from(self.free.row_mut(agent));
        if !self.holds.contains_key(&agent) {
            run.amount.take_from(self.view.row_mut(agent));
        }
        let Some(runs) = self.runs.get_mut(agent as usize) else { return };
        let at = runs.partition_point(|other| other.ends <= run.ends);
        runs.insert(at, run);
        self.changed(agent);
    }

    /// A session gives back a part of an agent.
    pub(crate) fn give_back(&mut self, agent: AgentNo, session: u32, amount: &Amounts) {
        if self.untake(agent, session, amount) {
            self.grew(agent);
        }
    }

    /// Takes back what has just been taken in vain: nobody has more room than before.
    pub(crate) fn untake(&mut self, agent: AgentNo, session: u32, amount: &Amounts) -> bool {
        let Some(runs) = self.runs.get_mut(agent as usize) else { return false };
        let same = |run: &Run| run.session == session && *run.amount == *amount;
        let Some(at) = runs.iter().position(same) else { return false };
        runs.remove(at);
        amount.add_to(self.free.row_mut(agent));
        if !self.holds.contains_key(&agent) {
            amount.add_to(self.view.row_mut(agent));
        }
        self.changed(agent);
        true
    }

    /// The end of a session is another one.
    pub(crate) fn set_end(&mut self, agent: AgentNo, session: u32, ends: i64) {
        if let Some(runs) = self.runs.get_mut(agent as usize) {
            runs.iter_mut().filter(|run| run.session == session).for_each(|run| run.ends = ends);
            runs.sort_by_key(|run| run.ends);
        }
    }

    /// Keeps room for a session whose victims still hold it: `free` may fall below zero.
    pub(crate) fn claim(&mut self, agent: AgentNo, amount: &Amounts) {
        amount.take_from(self.free.row_mut(agent));
        amount.take_from(self.view.row_mut(agent));
        self.changed(agent);
    }

    /// Takes a claim back.
    pub(crate) fn unclaim(&mut self, agent: AgentNo, amount: &Amounts) {
        amount.add_to(self.free.row_mut(agent));
        amount.add_to(self.view.row_mut(agent));
        self.grew(agent);
        self.changed(agent);
    }

    fn changed(&mut self, agent: AgentNo) {
        self.version += 1;
        self.refresh(agent);
    }

    fn grew(&mut self, agent: AgentNo) {
        if self.grown.last() != Some(&agent) {
            self.grown.push(agent);
        }
    }

    /// Agents that have more room than when this was asked last.
    pub(crate) fn take_grown(&mut self) -> Vec<AgentNo> {
        self.compact_grown();
        std::mem::take(&mut self.grown)
    }

    /// Whether so much has been noted that it is cheaper to begin anew. (Nobody catches up with the log while no pass is made.)
    pub(crate) fn log_is_long(&self) -> bool {
        self.log.len().max(self.grown.len()) > 1_024 + 4 * self.runs.len()
    }

    /// Keeps each grown agent once.
    pub(crate) fn compact_grown(&mut self) {
        self.grown.sort_unstable();
        self.grown.dedup();
    }

    /// Agents whose view has changed, oldest first, since the log was cleared.
    pub(crate) fn log(&self) -> &[AgentNo] {
        &self.log
    }

    pub(crate) fn clear_log(&mut self) {
        self.log.clear();
    }
}
