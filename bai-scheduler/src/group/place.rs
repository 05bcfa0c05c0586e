//! Finding agents for a session: all of its kernels or none.

use std::borrow::Cow;

use bai_core::AgentId;
use smallvec::SmallVec;

use super::pack::Packing;
use super::{Group, Members, Pools};
use crate::fleet::{GroupWish, Search, Wishes};
use crate::plan::{Placement, Plan};
use crate::queue::{Entry, Part, Seat, SessionNo};
use crate::room::{NEVER, Run};

/// The wishes of a session.
pub(super) fn wishes_of<'a>(entry: &'a Entry, members: &'a Members) -> Wishes<'a> {
    let Some(extras) = entry.extras.as_deref() else { return Wishes::default() };
    let group = extras.group.map(|group| GroupWish {
        members: members.get(&group.id),
        direction: group.direction,
        strict: group.strict,
    });
    Wishes { preferred: &extras.preferred, avoid: &extras.avoid, group }
}

impl Group {
    /// When a session that starts now ends at the latest.
    pub(super) fn end_from_now(&self, max_runtime: i64) -> i64 {
        if max_runtime == NEVER { NEVER } else { self.now.saturating_add(max_runtime) }
    }

    /// Takes room on agents for all kernels, or takes nothing.
    pub(super) fn try_place(&mut self, session: SessionNo) -> Option<SmallVec<[Part; 1]>> {
        let number = self.queue.get(session)?.request;
        let pools = self.pools_of(number);
        let until = self.end_from_now(self.requests.get(number)?.max_runtime());
        let turn = self.fleet.selector.rotates().then(|| self.fleet.last_used().clone());
        if let Some(parts) = self.by_strategy(session, &pools, until) {
            return Some(parts);
        }
        if let Some(turn) = turn {
            for (architecture, agent) in turn {
                self.fleet.set_last_used(&architecture, agent);
            }
        }
        // The strategy may have put an easy kernel where a hard one had to go. Try again without strategy.
        if self.requests.get(number)?.needs.len() > 1 {
            self.by_packing(session, &pools, until)
        } else {
            None
        }
    }

    fn by_strategy(&mut self, session: SessionNo, pools: &Pools, until: i64) -> Option<SmallVec<[Part; 1]>> {
        let Self { queue, requests, fleet, members, table, .. } = self;
        let entry = queue.get(session)?;
        let request = requests.get(entry.request)?;
        let wishes = wishes_of(entry, members);
        let mut taken: SmallVec<[(usize, Part); 8]> = SmallVec::new();
        for (need, pool) in request.needs.iter().zip(pools) {
            let search = Search { need, pool: *pool, until, wishes };
            for time in 0..need.times() {
                let Some(agent) = fleet.find(&search, table, requests.profiles()) else {
                    for (_, part) in taken.iter().rev() {
                        fleet.room.untake(part.agent, session, &part.amount);
                    }
                    return None;
                };
                fleet.used(agent);
                let part = Part { agent, amount: need.amounts.clone() };
                fleet.room.take(agent, Run { ends: until, session, amount: part.amount.clone() });
                taken.push((need.kernels.get(time).copied().unwrap_or(0), part));
            }
        }
        taken.sort_by_key(|(kernel, _)| *kernel);
        Some(taken.into_iter().map(|(_, part)| part).collect())
    }

    fn by_packing(&mut self, session: SessionNo, pools: &Pools, until: i64) -> Option<SmallVec<[Part; 1]>> {
        let entry = self.queue.get(session)?;
        let request = self.requests.get(entry.request)?;
        let room = &self.fleet.room;
        let mut packing = Packing::new(|agent| Cow::Borrowed(room.view(agent)));
        let agents = packing.pack(request, pools, &self.fleet, wishes_of(entry, &self.members)).ok()?;
        let parts: SmallVec<[Part; 1]> = agents
            .into_iter()
            .zip(&request.kernels)
            .map(|(agent, amount)| Part { agent, amount: amount.clone() })
            .collect();
        parts.iter().for_each(|part| self.take(session, part, until));
        Some(parts)
    }

    /// A session gets the room that has been taken for it.
    pub(super) fn place(&mut self, lane: u32, seat: Seat, parts: SmallVec<[Part; 1]>, plan: &mut Plan) {
        let session = seat.2;
        self.queue.unseat(lane, seat);
        let Some(entry) = self.queue.get(session) else { return };
        let (owner, number) = (entry.owner, entry.request);
        let Some(request) = self.requests.get(number) else { return };
        let (total, runtime, kernels) = (request.total.clone(), request.max_runtime(), request.kernels.len());
        self.accounts.count_pending(owner, &total, false, self.table.width());
        plan.placements.push(Placement { session: seat.1, agents: self.agent_ids(&parts, kernels) });
        let ends = self.end_from_now(runtime);
        self.settle_in(session, parts, self.now, ends);
    }

    /// One agent for each kernel of a session that has these parts.
    pub(super) fn agents_for(&self, session: SessionNo, parts: &[Part]) -> Vec<AgentId> {
        let request = self.queue.get(session).and_then(|entry| self.requests.get(entry.request));
        self.agent_ids(parts, request.map_or(0, |request| request.kernels.len()))
    }

    /// One agent per kernel.
    pub(super) fn agent_ids(&self, parts: &[Part], kernels: usize) -> Vec<AgentId> {
        let id = |part: &Part| self.fleet.node(part.agent).id.clone();
        match parts {
            [one] => vec![id(one); kernels],
            parts => parts.iter().map(id).collect(),
        }
    }
}
