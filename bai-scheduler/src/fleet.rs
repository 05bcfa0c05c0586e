//! The agents of a group: who they are, the books of their room, and orders of them by preference.

mod find;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bai_core::image_ref::canonical_architecture;
use bai_core::{AgentId, Result};

use crate::model::Agent;
use crate::room::order::Order;
use crate::room::{AgentNo, Room};
use crate::select::{Profile, Selector};
use crate::slots::{Amounts, SlotId, SlotTable, UNLIMITED, Units};

pub(crate) use find::{GroupWish, Search, Wishes};

/// What an agent must be, apart from its room.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Site {
    pub(crate) architecture: String,
    pub(crate) images: Vec<String>,
    /// The agents that will do, in the order of their ids.
    pub(crate) only: Option<Vec<AgentId>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) id: AgentId,
    architecture: String,
    images: Option<BTreeSet<String>>,
    labels: BTreeMap<String, String>,
    schedulable: bool,
    /// False for agents that are gone but still hold something.
    present: bool,
    /// Position in the order of the ids.
    rank: u32,
}

impl Node {
    pub(crate) fn usable(&self) -> bool {
        self.present && self.schedulable
    }
}

/// The agents that a site accepts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool {
    /// In the order of the ids.
    pub(crate) members: Vec<AgentNo>,
    contains: Vec<bool>,
    orders: Vec<(u32, Order)>,
}

impl Pool {
    pub(crate) fn contains(&self, agent: AgentNo) -> bool {
        self.contains.get(agent as usize).copied().unwrap_or(false)
    }
}

/// How capacities are read.
#[derive(Debug, Clone, Default)]
pub(crate) struct CapacityRules {
    /// In thousandths, by slot name.
    pub(crate) overcommit: BTreeMap<String, u32>,
    /// Bytes; 0 or 1 for none.
    pub(crate) memory_alignment: i64,
    pub(crate) max_kernels: Option<u32>,
}

/// How the agents rejected a site, by rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SiteReport {
    pub(crate) unavailable: u32,
    pub(crate) architecture: u32,
    pub(crate) image: u32,
    pub(crate) designated: u32,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    pub(crate) room: Room,
    pub(crate) selector: Arc<dyn Selector>,
    nodes: Vec<Node>,
    by_id: HashMap<AgentId, AgentNo>,
    capacities: Vec<Option<bai_core::slots::ResourceSlots>>,
    rules: CapacityRules,
    /// Ranks, pools and totals are to be made anew.
    dirty: bool,
    pools: Vec<Pool>,
    by_site: HashMap<Site, (u32, SiteReport)>,
    by_members: HashMap<Vec<AgentNo>, u32>,
    /// Capacity of all usable agents.
    total: Vec<Units>,
    /// By architecture: the agent that was used last.
    last_used: BTreeMap<String, AgentId>,
    pass: u64,
    /// Counts the times that pools were made anew.
    state: u64,
}

impl Fleet {
    pub(crate) fn new(selector: Arc<dyn Selector>, rules: CapacityRules) -> Self {
        Self {
            room: Room::default(),
            selector,
            nodes: Vec::new(),
            by_id: HashMap::new(),
            capacities: Vec::new(),
            rules,
            dirty: true,
            pools: Vec::new(),
            by_site: HashMap::new(),
            by_members: HashMap::new(),
            total: Vec::new(),
            last_used: BTreeMap::new(),
            pass: 0,
            state: 0,
        }
    }

    pub(crate) fn node(&self, agent: AgentNo) -> &Node {
        &self.nodes[agent as usize]
    }

    pub(crate) fn find_agent(&self, id: &AgentId) -> Option<AgentNo> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn agents(&self) -> impl Iterator<Item = AgentNo> + use<> {
        0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn total(&self) -> &[Units] {
        &self.total
    }

    pub(crate) fn rank(&self, agent: AgentNo) -> u32 {
        self.nodes[agent as usize].rank
    }

    /// The number of an agent. One that nobody has described yet is absent: it can hold sessions but takes none.
    pub(crate) fn number(&mut self, id: &AgentId) -> AgentNo {
        if let Some(number) = self.by_id.get(id) {
            return *number;
        }
        let number = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(Node {
            id: id.clone(),
            architecture: String::new(),
            images: None,
            labels: BTreeMap::new(),
            schedulable: false,
            present: false,
            rank: 0,
        });
        self.by_id.insert(id.clone(), number);
        self.capacities.push(None);
        self.room.push_agent();
        self.dirty = true;
        number
    }

    /// An agent is there, or another one than before.
    pub(crate) fn put(&mut self, agent: &Agent, table: &mut SlotTable) -> Result<()> {
        let capacity = self.effective(&agent.capacity, table)?;
        self.room.widen(table.width());
        let number = self.number(&agent.id);
        let node = &mut self.nodes[number as usize];
        canonical_architecture(&agent.architecture).clone_into(&mut node.architecture);
        node.images.clone_from(&agent.images);
        node.labels.clone_from(&agent.labels);
        node.schedulable = agent.schedulable;
        node.present = true;
        self.capacities[number as usize] = Some(agent.capacity.clone());
        self.room.set_capacity(number, &capacity);
        self.dirty = true;
        Ok(())
    }

    pub(crate) fn set_schedulable(&mut self, id: &AgentId, schedulable: bool) {
        if let Some(number) = self.find_agent(id) {
            let node = &mut self.nodes[number as usize];
            self.dirty |= node.schedulable != schedulable;
            node.schedulable = schedulable;
        }
    }

    pub(crate) fn leave(&mut self, id: &AgentId) {
        if let Some(number) = self.find_agent(id) {
            self.nodes[number as usize].present = false;
            self.capacities[number as usize] = None;
            self.room.set_capacity(number, &Amounts::default());
            self.dirty = true;
        }
    }

    /// Other options: capacities are read again and orders made anew.
    pub(crate) fn configure(
        &mut self,
        selector: Arc<dyn Selector>,
        rules: CapacityRules,
        table: &mut SlotTable,
    ) -> Result<()> {
        self.selector = selector;
        self.rules = rules;
        self.dirty = true;
        for number in self.agents() {
            if let Some(capacity) = self.capacities[number as usize].clone() {
                let capacity = self.effective(&capacity, table)?;
                self.room.set_capacity(number, &capacity);
            }
        }
        Ok(())
    }

    /// Capacity with over-commit factors and alignment applied, and the limit on kernels.
    fn effective(&self, capacity: &bai_core::slots::ResourceSlots, table: &mut SlotTable) -> Result<Amounts> {
        let mut effective = Amounts::default();
        for (slot, units) in table.supply(capacity)?.iter() {
            let factor = self.rules.overcommit.get(table.name(slot)).copied().unwrap_or(1_000);
            let scaled = i128::from(units) * i128::from(factor) / 1_000;
            let units = Units::try_from(scaled).unwrap_or(UNLIMITED).min(UNLIMITED);
            let alignment = if table.name(slot) == "mem" { self.rules.memory_alignment.max(1) } else { 1 };
            effective.add(slot, units - units % alignment);
        }
        let kernels = self.rules.max_kernels.map_or(UNLIMITED, Units::from);
        effective.add(SlotId::KERNELS, kernels);
        Ok(effective)
    }

    pub(crate) fn set_last_used(&mut self, architecture: &str, agent: AgentId) {
        self.last_used.insert(canonical_architecture(architecture).to_owned(), agent);
    }

    pub(crate) fn last_used(&self) -> &BTreeMap<String, AgentId> {
        &self.last_used
    }

    /// Makes ranks, totals and pools anew when agents have come, gone or changed. Tells whether it did.
    pub(crate) fn settle(&mut self, table: &SlotTable) -> bool {
        self.room.widen(table.width());
        if !std::mem::take(&mut self.dirty) {
            return false;
        }
        let mut order: Vec<AgentNo> = self.agents().collect();
        order.sort_unstable_by(|a, b| self.nodes[*a as usize].id.cmp(&self.nodes[*b as usize].id));
        for (rank, agent) in (0..).zip(&order) {
            self.nodes[*agent as usize].rank = rank;
        }
        self.total = vec![0; table.width()];
        for agent in order.iter().filter(|agent| self.nodes[**agent as usize].usable()) {
            let capacity = self.room.capacity(*agent);
            self.total.iter_mut().zip(capacity).for_each(|(sum, has)| *sum = sum.saturating_add(*has));
        }
        self.state += 1;
        self.pools.clear();
        self.by_site.clear();
        self.by_members.clear();
        self.room.clear_log();
        true
    }

    /// The number of the pool of a site.
    pub(crate) fn pool_of(&mut self, site: &Site) -> u32 {
        if let Some((pool, _)) = self.by_site.get(site) {
            return *pool;
        }
        let mut members: Vec<AgentNo> =
            self.agents().filter(|agent| rejection(site, &self.nodes[*agent as usize]).is_none()).collect();
        members.sort_unstable_by_key(|agent| self.nodes[*agent as usize].rank);
        let fresh = u32::try_from(self.pools.len()).unwrap_or(u32::MAX);
        let number = *self.by_members.entry(members.clone()).or_insert(fresh);
        if number == fresh {
            let mut contains = vec![false; self.nodes.len()];
            for agent in &members {
                contains[*agent as usize] = true;
            }
            self.pools.push(Pool { members, contains, orders: Vec::new() });
        }
        let report = self.report(site);
        self.by_site.insert(site.clone(), (number, report));
        number
    }

    pub(crate) fn pool(&self, number: u32) -> &Pool {
        &self.pools[number as usize]
    }

    /// How many agents a site rejects, by rule.
    pub(crate) fn site_report(&self, site: &Site) -> SiteReport {
        self.by_site.get(site).map_or_else(|| self.report(site), |(_, report)| *report)
    }

    fn report(&self, site: &Site) -> SiteReport {
        let mut report = SiteReport::default();
        for node in self.nodes.iter().filter(|node| node.present) {
            if let Some(count) = rejection(site, node) {
                count(&mut report);
            }
        }
        report
    }

    /// Changes whenever pools do.
    pub(crate) fn state(&self) -> u64 {
        self.state
    }

    /// Forgets the orders when it would take longer to bring them up to date than to make them anew.
    pub(crate) fn tidy(&mut self) {
        if self.room.log_is_long() {
            self.room.compact_grown();
            self.room.clear_log();
            self.pools.iter_mut().for_each(|pool| pool.orders.clear());
        }
    }

    /// Starts a pass.
    pub(crate) fn begin(&mut self, now: i64) {
        self.pass += 1;
        self.room.begin(now);
    }

    /// Ends a pass. Orders that nobody has used for a while are dropped, so that they need not catch up.
    pub(crate) fn end(&mut self, table: &SlotTable, profiles: &[Profile]) {
        const KEPT_PASSES: u64 = 64;
        self.room.end();
        let Self { room, pools, nodes, selector, pass, .. } = self;
        for pool in pools {
            pool.orders.retain(|(_, order)| *pass - order.used_in <= KEPT_PASSES);
            for (profile, order) in &mut pool.orders {
                let profile = &profiles[*profile as usize];
                order.sync(room, &find::FleetKeys { nodes, room, table, profile, selector: &**selector });
                order.rewind();
            }
        }
        self.room.clear_log();
    }
}

/// The first rule by which a site rejects an agent.
fn rejection(site: &Site, node: &Node) -> Option<fn(&mut SiteReport)> {
    if !node.usable() {
        return Some(|report| report.unavailable += 1);
    }
    if site.architecture != node.architecture {
        return Some(|report| report.architecture += 1);
    }
    let has = |image: &String| node.images.as_ref().is_none_or(|images| images.contains(image));
    if !site.images.iter().all(has) {
        return Some(|report| report.image += 1);
    }
    if site.only.as_ref().is_some_and(|only| only.binary_search(&node.id).is_err()) {
        return Some(|report| report.designated += 1);
    }
    None
}
