//! The capacity guard: what agents hold, read once per agent and transaction, and kept up from then on.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use bai_core::error::Result;
use bai_core::memory::store::rules;
use bai_core::slots::ResourceSlots;
use bai_core::{AgentId, Session, SessionId};

use super::rows::Prepared;
use super::session_id;
use crate::convert::{from_doc, plain};
use crate::db::{Arg, Row, Tx};
#[cfg(feature = "postgres")]
use crate::dialect::ROOM;
use crate::dialect::{HELD, LOCK_AGENTS};

/// The accounts of the agents that a transaction places kernels on.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    agents: HashMap<AgentId, Account>,
    /// What each session holds on these agents.
    held: HashMap<SessionId, BTreeMap<AgentId, ResourceSlots>>,
}

#[derive(Debug, Default)]
struct Account {
    /// Whether it has been read, and more is admitted.
    #[cfg(feature = "postgres")]
    is_open: bool,
    /// How much has been placed on the agent so far.
    #[cfg(feature = "postgres")]
    placements: i64,
    capacity: ResourceSlots,
    total: ResourceSlots,
}

impl Ledger {
    /// Opens the accounts of the agents that guarded changes place kernels on. Others wait for these agents until the
    /// transaction ends; all lock them in the order of their ids.
    pub(super) async fn open(tx: &mut Tx, changes: impl IntoIterator<Item = &Prepared>) -> Result<Self> {
        let mut ledger = Self::blank(changes);
        if ledger.agents.is_empty() {
            return Ok(ledger);
        }
        let ids = [ledger.ids()];
        for row in tx.rows(LOCK_AGENTS, &ids).await? {
            let agent = row.text(0)?;
            if let Some(account) = ledger.agents.get_mut(agent.as_str()) {
                account.capacity = from_doc(&row.text(1)?, "agent", &agent)?;
            }
        }
        let mut read = HashMap::new(); // many hold the same
        for row in tx.rows(HELD, &ids).await? {
            ledger.add(&row, &mut read)?;
        }
        Ok(ledger)
    }

    /// As [`Ledger::open`], but nobody waits: what is written upon it must see that the agents have the same `placements`.
    #[cfg(feature = "postgres")]
    pub(super) async fn read(tx: &mut Tx, changes: impl IntoIterator<Item = &Prepared>) -> Result<Self> {
        let mut ledger = Self::blank(changes);
        if ledger.agents.is_empty() {
            return Ok(ledger);
        }
        let ids = [ledger.ids()];
        let mut read = HashMap::new();
        for row in tx.rows(ROOM, &ids).await? {
            let agent = row.text(0)?;
            let Some(account) = ledger.agents.get_mut(agent.as_str()) else { continue };
            if !account.is_open {
                account.capacity = from_doc(&row.text(3)?, "agent", &agent)?;
                (account.is_open, account.placements) = (true, row.int(4)?);
            }
            if row.opt_text(1)?.is_some() {
                ledger.add(&row, &mut read)?;
            }
        }
        Ok(ledger)
    }

    /// With accounts of the agents that guarded changes place kernels on, empty yet.
    fn blank<'a>(changes: impl IntoIterator<Item = &'a Prepared>) -> Self {
        let guarded = changes.into_iter().filter(|change| change.guard_capacity);
        let agents = guarded.flat_map(|change| rules::held_by(change.session()).into_keys());
        let agents = agents.map(|agent| (agent.clone(), Account::default())).collect();
        Self { agents, held: HashMap::new() }
    }

    fn ids(&self) -> Arg<'static> {
        let ids = self.agents.keys().map(|agent| plain(agent.as_str()).into_owned());
        ids.collect::<Vec<_>>().into()
    }

    /// From the columns agent, session and allocation.
    fn add(&mut self, row: &Row, read: &mut HashMap<String, ResourceSlots>) -> Result<()> {
        let agent = AgentId::from(row.text(0)?);
        let Some(account) = self.agents.get_mut(&agent) else { return Ok(()) };
        let (id, doc) = (row.text(1)?, row.text(2)?);
        let allocated = match read.entry(doc) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let allocated = from_doc(new.key(), "kernel", &id)?;
                new.insert(allocated)
            }
        };
        account.total.add(allocated);
        self.held.entry(session_id(&id)?).or_default().entry(agent).or_default().add(allocated);
        Ok(())
    }

    /// # Errors
    /// `Conflict` when an agent has no room for what the session would hold.
    pub(super) fn require_room(&self, session: &Session) -> Result<()> {
        for (agent, asked) in rules::held_by(session) {
            if let Some(account) = self.agents.get(agent) {
                let mut others = account.total.clone();
                if let Some(own) = self.held.get(&session.id).and_then(|held| held.get(agent)) {
                    others.take(own);
                }
                rules::require_room(session.id, agent, &account.capacity, &others, &asked)?;
            }
        }
        Ok(())
    }

    /// Whether a change may be written before those that were not admitted, and if so enters it. Who cannot be keeps its agents
    /// from others after it: in this way each is decided as if it came in its turn.
    #[cfg(feature = "postgres")]
    pub(super) fn admits(&mut self, change: &Prepared) -> bool {
        let session = change.session();
        let before = self.held.get(&session.id);
        let mut now = rules::held_by(session);
        now.retain(|agent, _| self.agents.contains_key(*agent));
        let is_admitted = if change.guard_capacity {
            let is_open = |agent: &&AgentId| self.agents.get(*agent).is_some_and(|account| account.is_open);
            before.is_none() && now.keys().all(is_open) && self.require_room(session).is_ok()
        } else {
            now.iter().map(|(agent, held)| (*agent, held)).eq(before.into_iter().flatten())
        };
        if !is_admitted {
            for agent in before.into_iter().flat_map(BTreeMap::keys).chain(now.into_keys()) {
                self.agents.entry(agent.clone()).and_modify(|account| account.is_open = false);
            }
        } else if change.guard_capacity {
            self.enter(session);
        }
        is_admitted
    }

    /// How much had been placed on the agent when its account was read.
    #[cfg(feature = "postgres")]
    pub(super) fn placements(&self, agent: &AgentId) -> Option<i64> {
        self.agents.get(agent).map(|account| account.placements)
    }

    /// Enters what the session holds from now on.
    pub(super) fn enter(&mut self, session: &Session) {
        for (agent, before) in self.held.remove(&session.id).into_iter().flatten() {
            if let Some(account) = self.agents.get_mut(&agent) {
                account.total.take(&before);
            }
        }
        if self.agents.is_empty() {
            return;
        }
        for (agent, now) in rules::held_by(session) {
            if let Some(account) = self.agents.get_mut(agent) {
                account.total.add(&now);
                self.held.entry(session.id).or_default().insert(agent.clone(), now);
            }
        }
    }
}
