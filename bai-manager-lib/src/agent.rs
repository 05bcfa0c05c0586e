//! The agents as the manager sees them now, and how to call them.

pub(crate) mod pace;
mod table;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bai_core::error::code;
use bai_core::port::AgentApi;
use bai_core::port::store::Agent;
use bai_core::slots::SlotTypes;
use bai_core::{AgentId, Error, ResourceSlots, Result};

use crate::manager::core::Core;

pub(crate) use table::AgentTable;

/// Makes connections to agents: a map in one process, HTTP by address between processes.
#[async_trait]
pub trait AgentDialer: fmt::Debug + Send + Sync + 'static {
    /// A handle to the agent's API. Called again when its address or incarnation changes.
    ///
    /// # Errors
    /// `Unavailable` ([`code::AGENT_UNREACHABLE`]) when it cannot be reached.
    async fn dial(&self, agent: &Agent) -> Result<Arc<dyn AgentApi>>;
}

/// The live view of agents.
#[derive(Debug, Clone)]
pub struct AgentService {
    core: Arc<Core>,
}

impl AgentService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// All agents, ordered by id, as of their last reports.
    pub fn list(&self) -> Vec<Agent> {
        self.core.agents.list()
    }

    /// One agent.
    pub fn get(&self, id: &AgentId) -> Option<Agent> {
        self.core.agents.get(id)
    }

    /// A handle to the agent's API.
    ///
    /// # Errors
    /// `NotFound` for an unknown agent, `Unavailable` when it cannot be reached.
    pub async fn api(&self, id: &AgentId) -> Result<Arc<dyn AgentApi>> {
        self.core.agents.api(id).await
    }

    /// What the living kernels hold on the agent.
    pub fn occupied(&self, id: &AgentId) -> ResourceSlots {
        self.core.registry.held().remove(id).unwrap_or_default()
    }

    /// The slots that any agent offers, with their types; `cpu` and `mem` always.
    pub fn slot_types(&self) -> SlotTypes {
        self.core.agents.slot_types()
    }

    /// Sets whether the scheduler may use the agents.
    ///
    /// # Errors
    /// `NotFound` when one is unknown; none is changed then.
    pub async fn set_schedulable(&self, ids: &[AgentId], schedulable: bool) -> Result<()> {
        if let Some(unknown) = ids.iter().find(|id| self.core.agents.get(id).is_none()) {
            return Err(Error::of(code::AGENT_NOT_FOUND, "no such agent").with("agent", unknown));
        }
        for id in ids {
            self.core.backends.agents.set_schedulable(id, schedulable).await?;
            self.core.agents.set_schedulable(id, schedulable);
        }
        self.core.mark_pending_groups();
        Ok(())
    }
}
