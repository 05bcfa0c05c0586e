//! Which of the agents that fit (spec scheduler.md, section 9).
//!
//! A [`Selector`] gives each agent a key; among the agents that fit, the one with the smallest key is taken, and of equals
//! the first in the order of the ids. Keys may depend on which slots are asked for but not on how much, so that one order of
//! the agents serves all requests for the same slots.
//!
//! Whatever the selector says, three wishes of a session come before it: designated agents first, then what its session
//! group prefers, and agents that failed to start it last.

use std::collections::BTreeMap;
use std::fmt;

use bai_core::AgentId;
use smallvec::SmallVec;

use crate::slots::{SlotId, SlotTable, Units};

/// What agents are compared by, slot by slot; the smallest wins.
pub type SelectionKey = SmallVec<[i64; 4]>;

/// Which slots a request names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Profile {
    /// Those it asks for, most important first.
    pub asked: Vec<SlotId>,
    /// Those it names with zero: an agent that has them should be left to others.
    pub spared: Vec<SlotId>,
}

/// An agent as a selector sees it.
#[derive(Debug, Clone, Copy)]
pub struct AgentView<'a> {
    /// Identity.
    pub id: &'a AgentId,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// The slots of the group.
    pub table: &'a SlotTable,
    pub(crate) capacity: &'a [Units],
    pub(crate) free: &'a [Units],
}

impl AgentView<'_> {
    /// What it has of a slot.
    pub fn capacity(&self, slot: SlotId) -> Units {
        self.capacity.get(slot.index()).copied().unwrap_or(0)
    }

    /// What is free of a slot.
    pub fn free(&self, slot: SlotId) -> Units {
        self.free.get(slot.index()).copied().unwrap_or(0)
    }

    /// How many slots it has that the request wants to leave to others.
    pub fn unused_capabilities(&self, profile: &Profile) -> i64 {
        let unused = profile.spared.iter().filter(|slot| self.capacity(**slot) > 0).count();
        i64::try_from(unused).unwrap_or(i64::MAX)
    }
}

/// Chooses among agents that fit.
pub trait Selector: fmt::Debug + Send + Sync {
    /// Name, as in the options of a resource group.
    fn name(&self) -> &str;

    /// What the agent is ordered by.
    fn key(&self, profile: &Profile, agent: &AgentView<'_>) -> SelectionKey;

    /// Whether agents take turns: the search starts behind the agent that was used last. Keys should be equal then.
    fn rotates(&self) -> bool {
        false
    }
}

/// Fills agents up: least remaining first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Concentrated;

/// Spreads the load: most remaining first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dispersed;

/// The biggest agents first, whatever they hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct Legacy;

/// One agent after the other, in the order of their ids. The turn is part of the snapshot, so every manager goes on where
/// another has stopped (W-7), and an agent with exactly as much as is asked for fits (W-14).
#[derive(Debug, Clone, Copy, Default)]
pub struct RoundRobin;

fn key_of(profile: &Profile, agent: &AgentView<'_>, amount: impl Fn(SlotId) -> i64) -> SelectionKey {
    let mut key = SelectionKey::new();
    key.push(agent.unused_capabilities(profile));
    key.extend(profile.asked.iter().map(|slot| amount(*slot)));
    key
}

impl Selector for Concentrated {
    fn name(&self) -> &'static str {
        "concentrated"
    }

    fn key(&self, profile: &Profile, agent: &AgentView<'_>) -> SelectionKey {
        key_of(profile, agent, |slot| agent.free(slot))
    }
}

impl Selector for Dispersed {
    fn name(&self) -> &'static str {
        "dispersed"
    }

    fn key(&self, profile: &Profile, agent: &AgentView<'_>) -> SelectionKey {
        key_of(profile, agent, |slot| -agent.free(slot))
    }
}

impl Selector for Legacy {
    fn name(&self) -> &'static str {
        "legacy"
    }

    fn key(&self, profile: &Profile, agent: &AgentView<'_>) -> SelectionKey {
        key_of(profile, agent, |slot| -agent.capacity(slot))
    }
}

impl Selector for RoundRobin {
    fn name(&self) -> &'static str {
        "roundrobin"
    }

    fn key(&self, _: &Profile, _: &AgentView<'_>) -> SelectionKey {
        SelectionKey::new()
    }

    fn rotates(&self) -> bool {
        true
    }
}
