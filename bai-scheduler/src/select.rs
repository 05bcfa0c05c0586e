//! Which of the agents that fit.

use std::cmp::Ordering;
use std::fmt;

use bai_core::AgentId;
use bai_core::slots::{Amount, ResourceSlots, SlotName};

/// An agent that has room for a request.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Identity.
    pub id: &'a AgentId,
    /// What it has.
    pub capacity: &'a ResourceSlots,
    /// What of it is free.
    pub free: &'a ResourceSlots,
}

/// Chooses among agents that fit.
pub trait Selector: fmt::Debug + Send + Sync {
    /// Position of the chosen candidate. Candidates are in the order of the snapshot, and there is at least one.
    fn choose(&self, request: &ResourceSlots, candidates: &[Candidate<'_>], order: &SlotOrder) -> usize;
}

/// Fills agents up: least remaining first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Concentrated;

/// Spreads the load: most remaining first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dispersed;

impl Selector for Concentrated {
    fn choose(&self, request: &ResourceSlots, candidates: &[Candidate<'_>], order: &SlotOrder) -> usize {
        best(request, candidates, order, |a, b| a.cmp(&b))
    }
}

impl Selector for Dispersed {
    fn choose(&self, request: &ResourceSlots, candidates: &[Candidate<'_>], order: &SlotOrder) -> usize {
        best(request, candidates, order, |a, b| b.cmp(&a))
    }
}

/// Importance of slots: names of device families or of single slots, most important first; others follow by name.
#[derive(Debug, Clone)]
pub struct SlotOrder(Vec<String>);

impl SlotOrder {
    /// An order by `names`; a family such as `cuda` stands for all its slots.
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }

    /// Names of the slots that are asked for, most important first.
    pub fn sorted<'a>(&self, request: &'a ResourceSlots) -> Vec<&'a SlotName> {
        let mut names: Vec<_> =
            request.iter().filter(|(_, amount)| !amount.is_zero()).map(|(name, _)| name).collect();
        names.sort_by_key(|name| (self.rank(name), name.as_str()));
        names
    }

    fn rank(&self, name: &SlotName) -> usize {
        let listed = |listed: &String| listed == name.as_str() || listed == name.family();
        self.0.iter().position(listed).unwrap_or(self.0.len())
    }
}

impl Default for SlotOrder {
    fn default() -> Self {
        Self::new(["cuda", "rocm", "tpu", "cpu", "mem"])
    }
}

/// The first of the best candidates: fewest capabilities left unused, then `prefer` on what would remain, slot by slot.
fn best(
    request: &ResourceSlots,
    candidates: &[Candidate<'_>],
    order: &SlotOrder,
    prefer: impl Fn(Amount, Amount) -> Ordering,
) -> usize {
    let slots = order.sorted(request);
    let compare = |a: &Candidate<'_>, b: &Candidate<'_>| {
        let by_waste = unused_capabilities(request, a).cmp(&unused_capabilities(request, b));
        slots.iter().fold(by_waste, |so_far, slot| {
            so_far.then_with(|| prefer(a.free.get(slot.as_str()), b.free.get(slot.as_str())))
        })
    };
    // `min_by` keeps the first of equals.
    candidates.iter().enumerate().min_by(|(_, a), (_, b)| compare(a, b)).map_or(0, |(index, _)| index)
}

/// Slots that the request names with zero and the agent has: a graphics node should not go to a job without graphics.
fn unused_capabilities(request: &ResourceSlots, agent: &Candidate<'_>) -> usize {
    let unused = |(name, amount): &(&SlotName, &Amount)| {
        amount.is_zero() && !agent.capacity.get(name.as_str()).is_zero()
    };
    request.iter().filter(unused).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(amounts: &[(&str, u64)]) -> ResourceSlots {
        amounts.iter().map(|(name, amount)| (*name, *amount)).collect()
    }

    fn choose(selector: &dyn Selector, request: &[(&str, u64)], agents: &[&[(&str, u64)]]) -> usize {
        let ids: Vec<AgentId> = (0..agents.len()).map(|i| AgentId::new(format!("i-{i}"))).collect();
        let free: Vec<_> = agents.iter().map(|agent| slots(agent)).collect();
        let candidates: Vec<_> =
            ids.iter().zip(&free).map(|(id, free)| Candidate { id, capacity: free, free }).collect();
        selector.choose(&slots(request), &candidates, &SlotOrder::default())
    }

    #[test]
    fn concentrated_takes_the_fullest_and_dispersed_the_emptiest() {
        let agents: &[&[(&str, u64)]] = &[&[("cpu", 4)], &[("cpu", 2)], &[("cpu", 8)], &[("cpu", 8)]];
        assert_eq!(choose(&Concentrated, &[("cpu", 1)], agents), 1);
        assert_eq!(choose(&Dispersed, &[("cpu", 1)], agents), 2);
    }

    #[test]
    fn accelerators_are_spared_and_count_before_cores() {
        let agents: &[&[(&str, u64)]] =
            &[&[("cpu", 9), ("cuda.device", 4)], &[("cpu", 2), ("cuda.device", 2)], &[("cpu", 1)]];
        assert_eq!(choose(&Dispersed, &[("cpu", 1), ("cuda.device", 0)], agents), 2);
        assert_eq!(choose(&Concentrated, &[("cpu", 1), ("cuda.device", 1)], &agents[..2]), 1);
        assert_eq!(choose(&Dispersed, &[("cpu", 1), ("cuda.device", 1)], &agents[..2]), 0);
    }

    #[test]
    fn family_names_stand_for_their_slots() {
        let request = slots(&[("mem", 1), ("cpu", 1), ("cuda.shares", 1), ("zeta", 1)]);
        let sorted: Vec<_> =
            SlotOrder::default().sorted(&request).into_iter().map(SlotName::as_str).collect();
        assert_eq!(sorted, ["cuda.shares", "cpu", "mem", "zeta"]);
    }
}
