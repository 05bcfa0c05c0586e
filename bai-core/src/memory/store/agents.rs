//! Rows of agents, of the images they have, and the logs their kernels left.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::error::{Error, Result, code};
use crate::id::{AgentId, KernelId, SessionId};
use crate::image::Image;
use crate::port::store::Agent;
use crate::slots::ResourceSlots;

#[derive(Debug, Default)]
pub(super) struct Agents {
    rows: BTreeMap<AgentId, Agent>,
    /// By name and architecture.
    images: BTreeMap<(String, String), KnownImage>,
    logs: HashMap<KernelId, (SessionId, Vec<u8>)>,
}

#[derive(Debug)]
struct KnownImage {
    image: Image,
    agents: HashSet<AgentId>,
}

impl Agents {
    pub(super) fn put(&mut self, row: &Agent) {
        let mut row = row.clone();
        if let Some(old) = self.rows.get(&row.id) {
            row.first_contact = old.first_contact;
            row.schedulable = old.schedulable;
        }
        self.rows.insert(row.id.clone(), row);
    }

    pub(super) fn all(&self) -> Vec<Agent> {
        self.rows.values().cloned().collect()
    }

    pub(super) fn set_schedulable(&mut self, id: &AgentId, schedulable: bool) -> Result<()> {
        let agent = self.rows.get_mut(id);
        let agent =
            agent.ok_or_else(|| Error::of(code::AGENT_NOT_FOUND, "no such agent").with("agent", id))?;
        agent.schedulable = schedulable;
        Ok(())
    }

    /// Capacity of an agent; an unknown one has none.
    pub(super) fn capacity(&self, id: &AgentId) -> ResourceSlots {
        self.rows.get(id).map(|agent| agent.capacity.clone()).unwrap_or_default()
    }

    pub(super) fn put_images(&mut self, agent: &AgentId, images: &[Image]) {
        for known in self.images.values_mut() {
            known.agents.remove(agent);
        }
        for image in images {
            let key = (image.name.clone(), image.architecture.clone());
            let known = self
                .images
                .entry(key)
                .or_insert_with(|| KnownImage { image: image.clone(), agents: HashSet::new() });
            known.image = image.clone();
            known.agents.insert(agent.clone());
        }
        self.images.retain(|_, known| !known.agents.is_empty());
    }

    pub(super) fn images(&self) -> Vec<Image> {
        self.images.values().map(|known| known.image.clone()).collect()
    }

    pub(super) fn with_image(&self, name: &str) -> Vec<AgentId> {
        let known = self.images.iter().filter(|((known, _), _)| known == name);
        let mut agents: Vec<_> = known.flat_map(|(_, known)| known.agents.iter().cloned()).collect();
        agents.sort();
        agents.dedup();
        agents
    }

    pub(super) fn put_log(&mut self, kernel: KernelId, session: SessionId, log: &[u8]) {
        self.logs.insert(kernel, (session, log.to_vec()));
    }

    pub(super) fn log(&self, kernel: KernelId) -> Option<Vec<u8>> {
        self.logs.get(&kernel).map(|(_, log)| log.clone())
    }

    pub(super) fn drop_logs_of(&mut self, sessions: &HashSet<SessionId>) {
        self.logs.retain(|_, (session, _)| !sessions.contains(session));
    }
}
