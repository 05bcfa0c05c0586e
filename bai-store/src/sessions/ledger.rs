//! The capacity guard: what agents hold, read once per agent and transaction, and kept up from then on.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bai_core::error::Result;
use bai_core::memory::store::rules;
use bai_core::slots::ResourceSlots;
use bai_core::{AgentId, Session, SessionId};

use super::rows::Prepared;
use super::session_id;
use crate::convert::{from_doc, plain, to_doc};
use crate::db::{Row, Tx, args};
use crate::dialect::{HELD, LOCK_AGENTS};

/// The accounts of the agents that a transaction places kernels on.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    agents: HashMap<AgentId, Account>,
    /// What each session holds on these agents.
    held: HashMap<SessionId, HashMap<AgentId, ResourceSlots>>,
}

#[derive(Debug, Default)]
struct Account {
    capacity: ResourceSlots,
    total: ResourceSlots,
}

impl Ledger {
    /// Opens the accounts of the agents that guarded changes place kernels on. Others wait for these agents until the
    /// transaction ends; all lock them in the order of their ids.
    pub(super) async fn open(tx: &mut Tx, changes: impl IntoIterator<Item = &Prepared>) -> Result<Self> {
        let guarded = changes.into_iter().filter(|change| change.guard_capacity);
        let agents = guarded.flat_map(|change| rules::held_by(change.session()).into_keys());
        let mut ledger = Self::default();
        ledger.agents.extend(agents.map(|agent| (agent.clone(), Account::default())));
        if ledger.agents.is_empty() {
            return Ok(ledger);
        }
        let ids: Vec<_> = ledger.agents.keys().map(|agent| plain(agent.as_str())).collect();
        let ids = to_doc(&ids)?;
        for row in tx.rows(LOCK_AGENTS, &args![&ids]).await? {
            let agent = row.text(0)?;
            if let Some(account) = ledger.agents.get_mut(agent.as_str()) {
                account.capacity = from_doc(&row.text(1)?, "agent", &agent)?;
            }
        }
        let mut read = HashMap::new(); // many hold the same
        for row in tx.rows(HELD, &args![&ids]).await? {
            ledger.add(&row, &mut read)?;
        }
        Ok(ledger)
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
