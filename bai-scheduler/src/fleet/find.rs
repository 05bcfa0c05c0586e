//! The search for an agent.

use std::collections::BTreeMap;

use bai_core::AgentId;

use super::{Fleet, Node};
use crate::model::Direction;
use crate::request::Need;
use crate::room::order::{Key, Keys, Order};
use crate::room::{AgentNo, NEVER, Room};
use crate::select::{AgentView, Profile, Selector};
use crate::slots::SlotTable;

/// What a session wishes beyond its request. Without wishes the search need not look at every agent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wishes<'a> {
    /// Taken first.
    pub(crate) preferred: &'a [AgentId],
    /// Taken last.
    pub(crate) avoid: &'a [AgentId],
    /// Members of the session group by agent, and how they are to be placed.
    pub(crate) group: Option<GroupWish<'a>>,
}

/// See [`Wishes`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupWish<'a> {
    pub(crate) members: Option<&'a BTreeMap<AgentNo, u32>>,
    pub(crate) direction: Direction,
    pub(crate) strict: bool,
}

impl GroupWish<'_> {
    fn on(&self, agent: AgentNo) -> i64 {
        self.members.and_then(|members| members.get(&agent)).map_or(0, |count| i64::from(*count))
    }

    /// Whether the agent will do at all.
    pub(crate) fn allows(&self, agent: AgentNo) -> bool {
        let alone = self.members.is_none_or(BTreeMap::is_empty);
        match self.direction {
            _ if !self.strict => true,
            Direction::Spread => self.on(agent) == 0,
            Direction::Pack => alone || self.on(agent) > 0,
        }
    }

    fn key(&self, agent: AgentNo) -> i64 {
        match self.direction {
            Direction::Spread => self.on(agent),
            Direction::Pack => -self.on(agent),
        }
    }
}

impl Wishes<'_> {
    fn none(&self) -> bool {
        self.preferred.is_empty() && self.avoid.is_empty() && self.group.is_none()
    }

    pub(crate) fn allows(&self, agent: AgentNo) -> bool {
        self.group.is_none_or(|group| group.allows(agent))
    }

    fn key(&self, agent: AgentNo, id: &AgentId) -> (bool, i64, bool) {
        let group = self.group.map_or(0, |group| group.key(agent));
        (!self.preferred.contains(id), group, self.avoid.contains(id))
    }
}

/// Keys of agents for one profile.
pub(super) struct FleetKeys<'a> {
    pub(super) nodes: &'a [Node],
    pub(super) room: &'a Room,
    pub(super) table: &'a SlotTable,
    pub(super) profile: &'a Profile,
    pub(super) selector: &'a dyn Selector,
}

impl Keys for FleetKeys<'_> {
    fn key(&self, agent: AgentNo) -> Key {
        let node = &self.nodes[agent as usize];
        let view = AgentView {
            id: &node.id,
            labels: &node.labels,
            table: self.table,
            capacity: self.room.capacity(agent),
            free: self.room.view(agent),
        };
        let mut key = self.selector.key(self.profile, &view);
        if key.is_empty() {
            key.push(0); // an empty key marks agents that are not part of an order
        }
        key
    }

    fn rank(&self, agent: AgentNo) -> u32 {
        self.nodes[agent as usize].rank
    }
}

/// What is looked for: a need, until when, and for whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search<'a> {
    pub(crate) need: &'a Need,
    pub(crate) pool: u32,
    /// When the session ends at the latest.
    pub(crate) until: i64,
    pub(crate) wishes: Wishes<'a>,
}

impl Fleet {
    /// The best agent with room, by the wishes of the session and then by the strategy of the group. Agents with
    /// reservations have less room for sessions that stay for long.
    pub(crate) fn find(
        &mut self,
        search: &Search<'_>,
        table: &SlotTable,
        profiles: &[Profile],
    ) -> Option<AgentNo> {
        let profile = &profiles[search.need.profile as usize];
        let found = if search.wishes.none() {
            self.first(search, profile, table)
        } else {
            self.best(search, profile, table)
        };
        found.or_else(|| self.before_reservations(search, profile, table))
    }

    /// Notes whose turn it was.
    pub(crate) fn used(&mut self, agent: AgentNo) {
        if self.selector.rotates() {
            let node = &self.nodes[agent as usize];
            let (architecture, id) = (node.architecture.clone(), node.id.clone());
            self.last_used.insert(architecture, id);
        }
    }

    fn first(&mut self, search: &Search<'_>, profile: &Profile, table: &SlotTable) -> Option<AgentNo> {
        let last = self.turn(search);
        let Self { room, pools, nodes, selector, pass, .. } = self;
        let pool = &mut pools[search.pool as usize];
        let keys = FleetKeys { nodes, room, table, profile, selector: &**selector };
        let number = search.need.profile;
        let at = pool.orders.iter().position(|(known, _)| *known == number).unwrap_or_else(|| {
            pool.orders.push((number, Order::new(&pool.members, nodes.len(), room, &keys)));
            pool.orders.len() - 1
        });
        let order = &mut pool.orders[at].1;
        order.used_in = *pass;
        order.sync(room, &keys);
        if selector.rotates() {
            order.next(&search.need.amounts, room, &keys, last)
        } else {
            order.first(&search.need.amounts, room)
        }
    }

    /// The rank behind which the search starts, when agents take turns.
    fn turn(&self, search: &Search<'_>) -> Option<u32> {
        if !self.selector.rotates() {
            return None;
        }
        let last = self.last_used.get(&search.need.site.architecture)?;
        if let Some(agent) = self.find_agent(last) {
            return Some(self.rank(agent));
        }
        // An agent that this group has never seen still has a place in the order of the ids.
        self.nodes.iter().filter(|node| node.id <= *last).map(|node| node.rank).max()
    }

    fn best(&self, search: &Search<'_>, profile: &Profile, table: &SlotTable) -> Option<AgentNo> {
        let pool = &self.pools[search.pool as usize];
        let fits = |agent: &AgentNo| {
            search.wishes.allows(*agent) && search.need.amounts.fits(self.room.view(*agent))
        };
        self.least(pool.members.iter().copied().filter(fits), search, profile, table)
    }

    /// A session that ends in time may use what is reserved for later.
    fn before_reservations(
        &self,
        search: &Search<'_>,
        profile: &Profile,
        table: &SlotTable,
    ) -> Option<AgentNo> {
        if search.until == NEVER {
            return None;
        }
        let pool = &self.pools[search.pool as usize];
        let fits = |agent: &AgentNo| {
            pool.contains(*agent)
                && search.wishes.allows(*agent)
                && self.room.fits_until(*agent, &search.need.amounts, search.until)
        };
        self.least(self.room.reserved().filter(fits), search, profile, table)
    }

    fn least(
        &self,
        agents: impl Iterator<Item = AgentNo>,
        search: &Search<'_>,
        profile: &Profile,
        table: &SlotTable,
    ) -> Option<AgentNo> {
        let Self { room, nodes, selector, .. } = self;
        let keys = FleetKeys { nodes, room, table, profile, selector: &**selector };
        let last = self.turn(search);
        let key = |agent: &AgentNo| {
            let rank = nodes[*agent as usize].rank;
            let turn = last.is_some_and(|last| rank <= last);
            (search.wishes.key(*agent, &nodes[*agent as usize].id), keys.key(*agent), turn, rank)
        };
        agents.min_by_key(key)
    }
}
