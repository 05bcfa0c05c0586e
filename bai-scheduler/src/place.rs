//! Finding agents for a session: all of its kernels or none.

use std::collections::HashMap;

use bai_core::AgentId;
use bai_core::image_ref::canonical_architecture;
use bai_core::slots::{Amount, ResourceSlots, SlotType};
use bai_core::status::ClusterMode;

use crate::plan::Rules;
use crate::select::Candidate;
use crate::snapshot::{AgentState, Pending};

/// Something that needs room on one agent.
#[derive(Debug)]
struct Requirement<'a> {
    slots: ResourceSlots,
    architecture: &'a str,
    images: Vec<&'a str>,
    designated: Option<&'a AgentId>,
    /// Name of the kernel in reasons; empty when the session is one requirement.
    label: String,
}

impl Requirement<'_> {
    /// Equal for requirements that the same agents can take.
    fn key(&self) -> String {
        format!("{}|{}|{}", self.slots.normalized(), self.architecture, self.images.join(","))
    }
}

/// The agents while a plan is made.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    agents: &'a [AgentState],
    free: Vec<ResourceSlots>,
    /// Reasons of requirements that no agent had room for. Room only shrinks during a pass, so they stay true.
    hopeless: HashMap<String, String>,
}

impl<'a> Room<'a> {
    pub(crate) fn new(agents: &'a [AgentState]) -> Self {
        let free = agents.iter().map(|agent| agent.capacity.remaining(&agent.held)).collect();
        Self { agents, free, hopeless: HashMap::new() }
    }

    /// One agent per kernel and their room taken, or a reason and nothing taken.
    pub(crate) fn place(&mut self, session: &Pending, rules: &Rules<'_>) -> Result<Vec<AgentId>, String> {
        let requirements = requirements(session);
        if !session.designated.is_empty() && session.designated.len() != requirements.len() {
            return Err(format!(
                "{} agents are designated for {} kernels",
                session.designated.len(),
                requirements.len()
            ));
        }
        let mut taken: Vec<usize> = Vec::with_capacity(requirements.len());
        for requirement in &requirements {
            match self.find(requirement, session, rules) {
                Ok(agent) => {
                    self.free[agent].take(&requirement.slots);
                    taken.push(agent);
                }
                Err(reason) => {
                    self.give_back(&requirements, &taken);
                    return Err(format!("{}{reason}", requirement.label));
                }
            }
        }
        let id = |index: usize| self.agents[index].id.clone();
        Ok(match session.cluster_mode {
            ClusterMode::SingleNode => vec![id(taken[0]); session.kernels.len()],
            ClusterMode::MultiNode => taken.into_iter().map(id).collect(),
        })
    }

    fn give_back(&mut self, requirements: &[Requirement<'_>], taken: &[usize]) {
        for (requirement, agent) in requirements.iter().zip(taken) {
            self.free[*agent].add(&requirement.slots);
        }
    }

    fn find(
        &mut self,
        need: &Requirement<'_>,
        session: &Pending,
        rules: &Rules<'_>,
    ) -> Result<usize, String> {
        let key = need.designated.is_none().then(|| need.key());
        if let Some(reason) = key.as_ref().and_then(|key| self.hopeless.get(key)) {
            return Err(reason.clone());
        }
        let fitting = self.eligible(need).and_then(|eligible| self.with_room(need, &eligible, rules));
        match fitting {
            Ok(fitting) => Ok(self.choose(need, session, &fitting, rules)),
            Err(reason) => {
                // Within a gang the room shrinks only for as long as the gang is tried.
                if let Some(key) = key.filter(|_| need.label.is_empty()) {
                    self.hopeless.insert(key, reason.clone());
                }
                Err(reason)
            }
        }
    }

    /// Agents that could take it if they were empty enough.
    fn eligible(&self, need: &Requirement<'_>) -> Result<Vec<usize>, String> {
        let all: Vec<usize> = match need.designated {
            Some(id) => {
                let found = self.agents.iter().position(|agent| agent.id == *id);
                vec![found.ok_or_else(|| format!("the designated agent {id} is not available"))?]
            }
            None => (0..self.agents.len()).collect(),
        };
        if all.is_empty() {
            return Err("no agent is available in the resource group".to_owned());
        }
        let wanted = canonical_architecture(need.architecture);
        let same: Vec<_> = all
            .into_iter()
            .filter(|i| canonical_architecture(&self.agents[*i].architecture) == wanted)
            .collect();
        if same.is_empty() {
            return Err(format!("no available agent has the architecture {wanted}"));
        }
        let has = |agent: &AgentState| {
            agent.images.as_ref().is_none_or(|images| need.images.iter().all(|image| images.contains(*image)))
        };
        let able: Vec<_> = same.into_iter().filter(|i| has(&self.agents[*i])).collect();
        if able.is_empty() {
            return Err(format!("no available agent has the image {}", need.images.join(", ")));
        }
        Ok(able)
    }

    fn with_room(
        &self,
        need: &Requirement<'_>,
        agents: &[usize],
        rules: &Rules<'_>,
    ) -> Result<Vec<usize>, String> {
        let fitting: Vec<_> = agents
            .iter()
            .copied()
            .filter(|i| shortfalls(&need.slots, &self.free[*i]).next().is_none())
            .collect();
        if fitting.is_empty() { Err(self.shortage(need, agents, rules)) } else { Ok(fitting) }
    }

    /// What the agent that comes closest lacks, such as `needs cpu 1000; best agent has 2 free of 2`.
    fn shortage(&self, need: &Requirement<'_>, agents: &[usize], rules: &Rules<'_>) -> String {
        let order = rules.order.sorted(&need.slots);
        let lacking = |agent: usize| {
            let free = &self.free[agent];
            order
                .iter()
                .filter(|slot| need.slots.get(slot.as_str()) > free.get(slot.as_str()))
                .collect::<Vec<_>>()
        };
        let closest = agents.iter().copied().min_by(|a, b| {
            let (lack_a, lack_b) = (lacking(*a), lacking(*b));
            let most_of_first = || {
                let slot = lack_a.first().map_or("", |slot| slot.as_str());
                self.free[*b].get(slot).cmp(&self.free[*a].get(slot))
            };
            lack_a.len().cmp(&lack_b.len()).then_with(most_of_first)
        });
        let Some(agent) = closest else { return "no agent is available".to_owned() };
        let describe = |slot: &str| {
            let (free, capacity) = (self.free[agent].get(slot), self.agents[agent].capacity.get(slot));
            let words = |amount| SlotType::guess(slot).describe(amount);
            let (needed, free, capacity) = (words(need.slots.get(slot)), words(free), words(capacity));
            format!("needs {slot} {needed}; best agent has {free} free of {capacity}")
        };
        lacking(agent).iter().map(|slot| describe(slot.as_str())).collect::<Vec<_>>().join(", ")
    }

    fn choose(
        &self,
        need: &Requirement<'_>,
        session: &Pending,
        fitting: &[usize],
        rules: &Rules<'_>,
    ) -> usize {
        let fresh: Vec<_> =
            fitting.iter().copied().filter(|i| !session.avoid.contains(&self.agents[*i].id)).collect();
        let pool = if fresh.is_empty() { fitting } else { &fresh };
        let candidates: Vec<_> = pool
            .iter()
            .map(|i| Candidate {
                id: &self.agents[*i].id,
                capacity: &self.agents[*i].capacity,
                free: &self.free[*i],
            })
            .collect();
        let chosen = rules.selector.choose(&need.slots, &candidates, &rules.order);
        pool.get(chosen).copied().unwrap_or(pool[0])
    }
}

/// Slots of which more is needed than there is. Zero needs are never short.
fn shortfalls<'a>(
    need: &'a ResourceSlots,
    free: &'a ResourceSlots,
) -> impl Iterator<Item = (&'a str, Amount)> {
    need.iter()
        .filter(|(name, amount)| !amount.is_zero() && **amount > free.get(name.as_str()))
        .map(|(name, amount)| (name.as_str(), *amount))
}

/// One requirement for a single-node session, one per kernel for a multi-node one.
fn requirements(session: &Pending) -> Vec<Requirement<'_>> {
    let designated = |index: usize| session.designated.get(index);
    match session.cluster_mode {
        ClusterMode::SingleNode => {
            let mut images: Vec<_> = session.kernels.iter().map(|kernel| kernel.image.as_str()).collect();
            images.dedup();
            vec![Requirement {
                slots: session.requested(),
                architecture: session.kernels.first().map_or("", |kernel| kernel.architecture.as_str()),
                images,
                designated: designated(0),
                label: String::new(),
            }]
        }
        ClusterMode::MultiNode => {
            let gang = session.kernels.len() > 1;
            let kernels = session.kernels.iter().enumerate();
            kernels
                .map(|(index, kernel)| Requirement {
                    slots: kernel.slots.clone(),
                    architecture: &kernel.architecture,
                    images: vec![&kernel.image],
                    designated: designated(index),
                    label: if gang {
                        format!("kernel {} of {}: ", index + 1, session.kernels.len())
                    } else {
                        String::new()
                    },
                })
                .collect()
        }
    }
}
