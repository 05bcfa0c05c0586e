//! The agents as the manager sees them now, and how to call them.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bai_core::error::code;
use bai_core::port::AgentApi;
use bai_core::port::store::Agent;
use bai_core::slots::SlotTypes;
use bai_core::{AgentId, Error, ResourceSlots, Result};

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
pub struct AgentService {}

impl AgentService {
    /// All agents, ordered by id, as of their last reports.
    pub fn list(&self) -> Vec<Agent> {
        Vec::new()
    }

    /// One agent.
    pub fn get(&self, id: &AgentId) -> Option<Agent> {
        let _ = id;
        None
    }

    /// A handle to the agent's API.
    ///
    /// # Errors
    /// `NotFound` for an unknown agent, `Unavailable` when it cannot be reached.
    pub async fn api(&self, id: &AgentId) -> Result<Arc<dyn AgentApi>> {
        Err(Error::of(code::AGENT_NOT_FOUND, "no such agent").with("agent", id))
    }

    /// What the living kernels hold on the agent.
    pub fn occupied(&self, id: &AgentId) -> ResourceSlots {
        let _ = id;
        ResourceSlots::default()
    }

    /// The slots that any agent offers, with their types.
    pub fn slot_types(&self) -> SlotTypes {
        SlotTypes::default()
    }

    /// Sets whether the scheduler may use the agents.
    ///
    /// # Errors
    /// `NotFound` when one is unknown; none is changed then.
    pub async fn set_schedulable(&self, ids: &[AgentId], schedulable: bool) -> Result<()> {
        let _ = (ids, schedulable);
        Ok(())
    }
}
