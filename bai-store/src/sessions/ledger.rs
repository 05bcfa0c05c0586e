//! The capacity guard: what agents hold, read once per agent and transaction, and kept up from then on.

use std::collections::HashMap;

use bai_core::error::Result;
use bai_core::memory::store::rules;
use bai_core::slots::ResourceSlots;
use bai_core::{AgentId, Session, SessionId};

use crate::convert::{corrupt, from_doc, plain};
use crate::db::{Tx, args};
use crate::dialect::{LOCK_AGENT, statements};

statements! {
    HELD = "SELECT session_id, allocated FROM kernels WHERE agent_id = $1 AND holds";
}

/// The accounts of the agents that a transaction places kernels on.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    agents: HashMap<AgentId, Account>,
}

#[derive(Debug, Default)]
struct Account {
    capacity: ResourceSlots,
    total: ResourceSlots,
    of_session: HashMap<SessionId, ResourceSlots>,
}

impl Ledger {
    /// Opens the accounts of agents. Others wait for these agents until the transaction ends: all must ask in the same
    /// order, which is that of their ids.
    pub(super) async fn open(tx: &mut Tx, agents: impl IntoIterator<Item = &AgentId>) -> Result<Self> {
        let mut ledger = Self::default();
        let mut agents: Vec<_> = agents.into_iter().collect();
        agents.sort_unstable();
        agents.dedup();
        for agent in agents {
            ledger.agents.insert(agent.clone(), Account::read(tx, agent).await?);
        }
        Ok(ledger)
    }

    /// # Errors
    /// `Conflict` when an agent has no room for what the session would hold.
    pub(super) fn require_room(&self, session: &Session) -> Result<()> {
        for (agent, asked) in rules::held_by(session) {
            if let Some(account) = self.agents.get(agent) {
                let mut others = account.total.clone();
                if let Some(own) = account.of_session.get(&session.id) {
                    others.take(own);
                }
                rules::require_room(session.id, agent, &account.capacity, &others, &asked)?;
            }
        }
        Ok(())
    }

    /// Enters what the session holds from now on.
    pub(super) fn enter(&mut self, session: &Session) {
        if self.agents.is_empty() {
            return;
        }
        let mut held = rules::held_by(session);
        for (agent, account) in &mut self.agents {
            account.replace(session.id, held.remove(agent).unwrap_or_default());
        }
    }
}

impl Account {
    async fn read(tx: &mut Tx, agent: &AgentId) -> Result<Self> {
        let mut account = Self::default();
        if let Some(row) = tx.row(LOCK_AGENT, &args![agent.as_str()]).await? {
            account.capacity = from_doc(&row.text(0)?, "agent", agent.as_str())?;
        }
        for row in tx.rows(HELD, &args![plain(agent.as_str())]).await? {
            let id = row.text(0)?;
            let allocated: ResourceSlots = from_doc(&row.text(1)?, "kernel", &id)?;
            let id = id.parse().map_err(|error: bai_core::Error| corrupt("kernel", &id).source(error))?;
            account.total.add(&allocated);
            account.of_session.entry(id).or_default().add(&allocated);
        }
        Ok(account)
    }

    fn replace(&mut self, session: SessionId, held: ResourceSlots) {
        if let Some(before) = self.of_session.remove(&session) {
            self.total.take(&before);
        }
        if !held.is_zero() {
            self.total.add(&held);
            self.of_session.insert(session, held);
        }
    }
}
