//! Agents.

use std::collections::{BTreeMap, BTreeSet};

use bai_core::AgentId;
use bai_core::slots::ResourceSlots;

/// A node of the resource group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Identity. Ties between agents go to the first in the order of the ids.
    pub id: AgentId,
    /// Processor architecture, by any of its names.
    pub architecture: String,
    /// What it has, before over-commit factors.
    pub capacity: ResourceSlots,
    /// Whether it is alive and takes new sessions.
    pub schedulable: bool,
    /// Names of the images it can start; `None` when it can get any.
    pub images: Option<BTreeSet<String>>,
    /// Free labels, for selectors of one's own.
    pub labels: BTreeMap<String, String>,
}

impl Agent {
    /// A schedulable agent that can start any image.
    pub fn new(id: impl Into<AgentId>, architecture: impl Into<String>, capacity: ResourceSlots) -> Self {
        Self {
            id: id.into(),
            architecture: architecture.into(),
            capacity,
            schedulable: true,
            images: None,
            labels: BTreeMap::new(),
        }
    }
}
