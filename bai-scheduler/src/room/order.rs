//! Agents in the order of preference of a strategy, searched for the first that fits.
//!
//! The order is cut into blocks of a few dozen agents. Each block knows the most that any of its agents has free of each
//! slot, so a search passes over a whole block where one slot is too scarce, and looks at single agents only in blocks
//! that may hold an answer. A change of one agent touches at most two blocks.
//!
//! An order is a cache: it can be dropped at any time and is rebuilt from the [`Room`].

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::{AgentNo, Room};
use crate::slots::{Amounts, Units};

/// What an agent is ordered by, smallest first.
pub(crate) type Key = SmallVec<[i64; 4]>;

const BLOCK: usize = 32;

#[derive(Debug, Clone, Default)]
struct Block {
    agents: Vec<AgentNo>,
    most: Vec<Units>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Order {
    /// By agent; empty for agents that are not part of it.
    keys: Vec<Key>,
    blocks: Vec<Block>,
    /// How far in the log of the room it has come.
    seen: usize,
    /// The pass in which it was used last.
    pub(crate) used_in: u64,
}

/// Tells the key of an agent.
pub(crate) trait Keys {
    fn key(&self, agent: AgentNo) -> Key;
    /// Position of an agent in the order of the ids: decides ties.
    fn rank(&self, agent: AgentNo) -> u32;
}

impl Order {
    /// The order of `members`, as the room is now.
    pub(crate) fn new(members: &[AgentNo], agents: usize, room: &Room, keys: &impl Keys) -> Self {
        let mut order = Self { keys: vec![Key::new(); agents], seen: room.log().len(), ..Self::default() };
        for agent in members {
            order.keys[*agent as usize] = keys.key(*agent);
        }
        let mut sorted = members.to_vec();
        sorted.sort_unstable_by(|a, b| order.compare(*a, *b, keys));
        for agents in sorted.chunks(BLOCK) {
            let mut block = Block { agents: agents.to_vec(), most: Vec::new() };
            block.measure(room);
            order.blocks.push(block);
        }
        order
    }

    /// Catches up with the room.
    pub(crate) fn sync(&mut self, room: &Room, keys: &impl Keys) {
        let log = room.log();
        while let Some(agent) = log.get(self.seen) {
            self.seen += 1;
            if self.keys.get(*agent as usize).is_some_and(|key| !key.is_empty()) {
                self.update(*agent, room, keys);
            }
        }
    }

    /// The log of the room is about to be cleared.
    pub(crate) fn rewind(&mut self) {
        self.seen = 0;
    }

    fn compare(&self, a: AgentNo, b: AgentNo, keys: &impl Keys) -> Ordering {
        self.keys[a as usize].cmp(&self.keys[b as usize]).then_with(|| keys.rank(a).cmp(&keys.rank(b)))
    }

    fn update(&mut self, agent: AgentNo, room: &Room, keys: &impl Keys) {
        let Some(at) = self.block_of(agent, keys) else { return };
        let key = keys.key(agent);
        if key == self.keys[agent as usize] {
            self.blocks[at].measure(room);
            return;
        }
        self.blocks[at].agents.retain(|other| *other != agent);
        if self.blocks[at].agents.is_empty() {
            self.blocks.remove(at);
        } else {
            self.blocks[at].measure(room);
        }
        self.keys[agent as usize] = key;
        self.insert(agent, room, keys);
    }

    fn insert(&mut self, agent: AgentNo, room: &Room, keys: &impl Keys) {
        if self.blocks.is_empty() {
            self.blocks.push(Block::default());
        }
        let at = self.block_for(agent, keys);
        let inside = self.blocks[at]
            .agents
            .partition_point(|other| self.compare(*other, agent, keys) == Ordering::Less);
        let block = &mut self.blocks[at];
        block.agents.insert(inside, agent);
        if block.agents.len() < 2 * BLOCK {
            block.widen(agent, room);
            return;
        }
        let mut rest = Block { agents: block.agents.split_off(BLOCK), most: Vec::new() };
        block.measure(room);
        rest.measure(room);
        self.blocks.insert(at + 1, rest);
    }

    /// The block into which an agent falls: the last that does not start behind it.
    fn block_for(&self, agent: AgentNo, keys: &impl Keys) -> usize {
        let starts_before = |block: &Block| {
            block.agents.first().is_none_or(|first| self.compare(*first, agent, keys) != Ordering::Greater)
        };
        self.blocks.partition_point(starts_before).saturating_sub(1)
    }

    fn block_of(&self, agent: AgentNo, keys: &impl Keys) -> Option<usize> {
        let at = self.block_for(agent, keys);
        self.blocks.get(at)?.agents.contains(&agent).then_some(at)
    }

    /// The first agent whose view has room for `need`.
    pub(crate) fn first(&self, need: &Amounts, room: &Room) -> Option<AgentNo> {
        self.blocks
            .iter()
            .filter(|block| need.fits(&block.most))
            .find_map(|block| block.agents.iter().copied().find(|agent| need.fits(room.view(*agent))))
    }

    /// The first agent behind `last`, in a circle, whose view has room for `need`.
    pub(crate) fn next(
        &self,
        need: &Amounts,
        room: &Room,
        keys: &impl Keys,
        last: Option<u32>,
    ) -> Option<AgentNo> {
        let Some(last) = last else { return self.first(need, room) };
        let behind = |agent: &AgentNo| keys.rank(*agent) > last;
        let start = self.blocks.partition_point(|block| block.agents.last().is_some_and(|a| !behind(a)));
        let later = self.blocks[start..].iter().filter(|block| need.fits(&block.most)).find_map(|block| {
            block.agents.iter().copied().find(|agent| behind(agent) && need.fits(room.view(*agent)))
        });
        later.or_else(|| self.first(need, room))
    }
}

impl Block {
    fn measure(&mut self, room: &Room) {
        self.most.clear();
        for agent in &self.agents {
            let view = room.view(*agent);
            if self.most.is_empty() {
                self.most.extend_from_slice(view);
            } else {
                self.most.iter_mut().zip(view).for_each(|(most, free)| *most = (*most).max(*free));
            }
        }
    }

    fn widen(&mut self, agent: AgentNo, room: &Room) {
        let view = room.view(agent);
        self.most.resize(view.len(), Units::MIN);
        self.most.iter_mut().zip(view).for_each(|(most, free)| *most = (*most).max(*free));
    }
}
