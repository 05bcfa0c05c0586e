//! How a resource group wants to be scheduled (spec scheduler.md, section 11).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bai_core::status::SessionType;
use chrono::TimeDelta;

use crate::select::{Concentrated, Dispersed, Legacy, RoundRobin, Selector};
use crate::sequence::{Drf, FairShare, Fifo, Lifo, Sequencer};
use crate::slots::SlotOrder;
use crate::validate::Validator;

/// Options of one resource group.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who comes first.
    pub sequencer: Arc<dyn Sequencer>,
    /// Which agent.
    pub selector: Arc<dyn Selector>,
    /// Checks of one's own, after the built-in ones.
    pub validators: Vec<Arc<dyn Validator>>,
    /// Importance of slots.
    pub slot_order: SlotOrder,
    /// What others may do while the first in the queue finds no room.
    pub backfill: Backfill,
    /// Whether sessions may push others out; `None`: never.
    pub preemption: Option<Preemption>,
    /// Types of sessions that the group takes; private sessions are taken in any case.
    pub allowed_types: BTreeSet<SessionType>,
    /// Most kernels on one agent.
    pub max_kernels_per_agent: Option<u32>,
    /// By slot name, in thousandths: 2,000 lets twice as much be given away as there is.
    pub overcommit: BTreeMap<String, u32>,
    /// The memory of an agent is cut to a multiple of so many bytes; 0 for none.
    pub memory_alignment: u32,
    /// Time after which past usage counts half; `None`: it never fades.
    pub half_life: Option<TimeDelta>,
}

impl Default for Options {
    /// First come first served, spread over the agents, easy backfill, no preemption, usage fades by half in a week.
    fn default() -> Self {
        Self {
            sequencer: Arc::new(Fifo),
            selector: Arc::new(Dispersed),
            validators: Vec::new(),
            slot_order: SlotOrder::default(),
            backfill: Backfill::Easy,
            preemption: None,
            allowed_types: SessionType::ALL.iter().copied().collect(),
            max_kernels_per_agent: None,
            overcommit: BTreeMap::new(),
            memory_alignment: 0,
            half_life: Some(TimeDelta::days(7)),
        }
    }
}

impl Options {
    /// The sequencer of this name, if it is a built-in one. `mof` is the name of an old one that served the oldest first.
    pub fn sequencer_named(name: &str) -> Option<Arc<dyn Sequencer>> {
        match name {
            "fifo" | "mof" => Some(Arc::new(Fifo)),
            "lifo" => Some(Arc::new(Lifo)),
            "drf" => Some(Arc::new(Drf)),
            "fair-share" => Some(Arc::new(FairShare::default())),
            _ => None,
        }
    }

    /// The selector of this name, if it is a built-in one.
    pub fn selector_named(name: &str) -> Option<Arc<dyn Selector>> {
        match name {
            "concentrated" => Some(Arc::new(Concentrated)),
            "dispersed" => Some(Arc::new(Dispersed)),
            "roundrobin" => Some(Arc::new(RoundRobin)),
            "legacy" => Some(Arc::new(Legacy)),
            _ => None,
        }
    }
}

/// What happens behind a session that finds no room (W-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backfill {
    /// Nobody overtakes: the pass ends at the first session that finds no room.
    Strict,
    /// The first one gets a reservation; others may use all that does not delay it.
    Easy,
    /// So many of the first ones get reservations; others may use all that delays none of them.
    Conservative(u32),
}

impl Backfill {
    /// How many reservations are made.
    pub(crate) fn reservations(self) -> u32 {
        match self {
            Self::Strict | Self::Easy => 1,
            Self::Conservative(count) => count,
        }
    }
}

/// How sessions push others out (spec scheduler.md, section 12).
#[derive(Debug, Clone)]
pub struct Preemption {
    /// Who may be pushed out, seen from the one that needs room.
    pub scope: VictimScope,
    /// Which of those with the same job priority go first.
    pub order: VictimOrder,
    /// Nobody is pushed out before having run this long.
    pub min_runtime: TimeDelta,
    /// Victims have this long to end by themselves.
    pub grace: TimeDelta,
    /// A reservation whose victims have not ended this long after the grace period is given up.
    pub timeout: TimeDelta,
    /// A session that gave up a reservation tries again after this long at the earliest.
    pub cooldown: TimeDelta,
    /// Most sessions per pass for which victims are looked for.
    pub attempts: u32,
}

impl Default for Preemption {
    fn default() -> Self {
        Self {
            scope: VictimScope::User,
            order: VictimOrder::LeastWorkLost,
            min_runtime: TimeDelta::zero(),
            grace: TimeDelta::seconds(30),
            timeout: TimeDelta::minutes(5),
            cooldown: TimeDelta::minutes(5),
            attempts: 64,
        }
    }
}

/// Whose sessions may be pushed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VictimScope {
    /// Those of the same user.
    User,
    /// Those of the same project.
    Project,
    /// Those of the same domain.
    Domain,
    /// All of the resource group.
    ResourceGroup,
}

/// Which of several possible victims goes first, job priorities being equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VictimOrder {
    /// The one that loses the least work: time run times dominant share.
    LeastWorkLost,
    /// The one that started first.
    Oldest,
    /// The one that started last.
    Newest,
    /// The biggest, so that few have to go.
    FewestSessions,
    /// The smallest.
    SmallestResources,
}
