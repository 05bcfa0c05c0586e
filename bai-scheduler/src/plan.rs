//! One pass over a resource group.

use bai_core::{AgentId, SessionId};

use crate::place::Room;
use crate::select::{Dispersed, Selector, SlotOrder};
use crate::sequence::{Fifo, Sequencer, ordered};
use crate::snapshot::Snapshot;
use crate::validate::{Reasons, Refusal, validate};

/// How a group wants to be scheduled.
#[derive(Debug)]
pub struct Rules<'a> {
    /// Who comes first.
    pub sequencer: &'a dyn Sequencer,
    /// Which agent.
    pub selector: &'a dyn Selector,
    /// Importance of slots.
    pub order: SlotOrder,
}

impl Default for Rules<'_> {
    /// First come first served, spread over the agents.
    fn default() -> Self {
        Self { sequencer: &Fifo, selector: &Dispersed, order: SlotOrder::default() }
    }
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Sessions to start, in the order they were served, with one agent per kernel.
    pub placements: Vec<(SessionId, Vec<AgentId>)>,
    /// All others, with reasons.
    pub unplaced: Vec<(SessionId, Reasons)>,
}

/// Decides about every pending session of the snapshot.
pub fn plan(snapshot: &Snapshot, rules: &Rules<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut quotas = snapshot.quotas.clone();
    let mut room = Room::new(&snapshot.agents);
    for session in ordered(&snapshot.pending, rules.sequencer) {
        let decision = validate(session, &quotas, snapshot.now).and_then(|passed| {
            room.place(session, rules).map_err(|message| Reasons {
                refusal: Refusal::NoAgent,
                failed: Vec::new(),
                passed,
                message,
            })
        });
        match decision {
            Ok(agents) => {
                quotas.charge(session);
                plan.placements.push((session.id, agents));
            }
            Err(reasons) => plan.unplaced.push((session.id, reasons)),
        }
    }
    plan
}

#[cfg(test)]
mod tests;
