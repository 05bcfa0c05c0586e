//! One resource group: the snapshot that is built once and then kept by deltas.

mod admit;
mod apply;
mod backfill;
mod claims;
mod pack;
mod pass;
mod place;
mod preempt;
mod reasons;

use std::collections::{BTreeMap, HashMap};

use bai_core::slots::SlotTypes;
use bai_core::{AgentId, SessionId, Timestamp};

use crate::accounts::Accounts;
use crate::fleet::{CapacityRules, Fleet};
use crate::model::{Holder, SessionGroupId};
use crate::options::Options;
use crate::plan::Reservation;
use crate::queue::{Queue, State};
use crate::request::Requests;
use crate::room::AgentNo;
use crate::slots::SlotTable;

/// A resource group: agents, sessions, owners, options.
///
/// It is fed with [deltas](crate::Delta) and asked for a plan with [`Group::pass`]. The plan depends on what the group holds and on
/// nothing else: not on the order in which it was told, and not on what earlier passes looked at. A group that was kept by
/// deltas for a long time and one that was built afresh from the same facts make the same plan.
///
/// ```
/// use bai_core::Timestamp;
/// use bai_core::slots::{ResourceSlots, SlotTypes};
/// use bai_scheduler::{Agent, Delta, Group, Options};
///
/// let mut group = Group::new(Options::default(), SlotTypes::new());
/// let capacity = ResourceSlots::from_iter([("cpu", 8_u64)]);
/// group.apply(Delta::Agent(Box::new(Agent::new("i-one", "x86_64", capacity))))?;
/// let plan = group.pass(Timestamp::default());
/// assert!(plan.placements.is_empty());
/// # Ok::<(), bai_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Group {
    options: Options,
    table: SlotTable,
    fleet: Fleet,
    accounts: Accounts,
    requests: Requests,
    queue: Queue,
    /// Where the members of session groups are.
    members: Members,
    /// Of the last pass, for explanations.
    reservations: Vec<Reservation>,
    /// Whether nobody could overtake in the last pass.
    closed: bool,
    pass: u64,
    now: i64,
}

impl Group {
    /// A group without agents and sessions. `types` says how the amounts of slots are counted.
    pub fn new(options: Options, types: SlotTypes) -> Self {
        let mut accounts = Accounts::default();
        accounts.set_half_life(half_life(&options));
        Self {
            table: SlotTable::new(types),
            fleet: Fleet::new(options.selector.clone(), capacity_rules(&options)),
            accounts,
            requests: Requests::default(),
            queue: Queue::default(),
            members: HashMap::new(),
            reservations: Vec::new(),
            closed: false,
            pass: 0,
            now: 0,
            options,
        }
    }

    /// Its options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The slots that it has met.
    pub fn slots(&self) -> &SlotTable {
        &self.table
    }

    /// How many sessions wait, those included that wait for a time or for other sessions.
    pub fn pending(&self) -> usize {
        self.queue.iter().filter(|(_, entry)| !matches!(entry.state, State::Held(_))).count()
    }

    /// The agents that a session holds, one per kernel; `None` when it holds nothing.
    pub fn agents_of(&self, session: SessionId) -> Option<Vec<AgentId>> {
        let entry = self.queue.get(self.queue.find(session)?)?;
        let State::Held(held) = &entry.state else { return None };
        let kernels = self.requests.get(entry.request)?.kernels.len();
        Some(self.agent_ids(&held.parts, kernels))
    }

    /// What an agent has and what of it is free, as the rest of the system writes it; `None` for an unknown agent.
    pub fn room_of(
        &self,
        agent: &AgentId,
    ) -> Option<(bai_core::slots::ResourceSlots, bai_core::slots::ResourceSlots)> {
        let number = self.fleet.find_agent(agent)?;
        let read = |row: &[i64]| {
            let slots = self.table.ids();
            slots
                .map(|slot| {
                    let units = row.get(slot.index()).copied().unwrap_or(0);
                    (self.table.name(slot).to_owned(), self.table.amount(slot, units))
                })
                .collect()
        };
        Some((read(self.fleet.room.capacity(number)), read(self.fleet.room.free(number))))
    }

    /// The agent that round robin used last, by architecture: to be stored and told with
    /// [`Delta::LastUsed`](crate::Delta::LastUsed) after a restart.
    pub fn last_used(&self) -> &BTreeMap<String, AgentId> {
        self.fleet.last_used()
    }

    /// What a holder uses in this group.
    pub fn used_by(&self, holder: &Holder) -> bai_core::slots::ResourceSlots {
        let Some(number) = self.accounts.find(holder) else { return bai_core::slots::ResourceSlots::new() };
        let used = self.accounts.get(number).used();
        let slots = self.table.ids().filter(|slot| used.get(slot.index()).is_some_and(|units| *units != 0));
        slots
            .map(|slot| (self.table.name(slot).to_owned(), self.table.amount(slot, used[slot.index()])))
            .collect()
    }

    /// How many sessions of a holder hold agents in this group: those that are not private, and private ones.
    pub fn sessions_of(&self, holder: &Holder) -> [u32; 2] {
        let Some(number) = self.accounts.find(holder) else { return [0, 0] };
        self.accounts.get(number).sessions_here()
    }

    pub(crate) fn time(micros: i64) -> Timestamp {
        bai_core::clock::from_micros(micros)
    }
}

fn half_life(options: &Options) -> Option<i64> {
    options.half_life.and_then(|half_life| half_life.num_microseconds())
}

fn capacity_rules(options: &Options) -> CapacityRules {
    CapacityRules {
        overcommit: options.overcommit.clone(),
        memory_alignment: i64::from(options.memory_alignment),
        max_kernels: options.max_kernels_per_agent,
    }
}

/// The pools of the needs of a request.
pub(crate) type Pools = smallvec::SmallVec<[u32; 2]>;

/// Where the members of session groups are, and how many.
pub(crate) type Members = HashMap<SessionGroupId, BTreeMap<AgentNo, u32>>;
