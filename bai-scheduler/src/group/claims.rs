//! Claims: room that is promised to a session whose victims still end. Nobody else gets it.

use bai_core::SessionId;
use smallvec::SmallVec;

use super::Group;
use crate::plan::{Placement, Plan};
use crate::queue::{Claim, Part, SessionNo, State};
use crate::slots::Units;

impl Group {
    /// A waiting session, already out of its lane, gets a claim.
    pub(super) fn stake(&mut self, session: SessionNo, parts: SmallVec<[Part; 1]>, victims: Vec<SessionId>) {
        let Some(preemption) = &self.options.preemption else { return };
        let patience = preemption.grace + preemption.timeout;
        let expires = self.now.saturating_add(patience.num_microseconds().unwrap_or(i64::MAX));
        let Some(entry) = self.queue.get(session) else { return };
        let (id, owner, number) = (entry.id, entry.owner, entry.request);
        let Some(request) = self.requests.get(number) else { return };
        let (total, private) = (request.total.clone(), request.private());
        self.accounts.charge(owner, &total, private, self.table.width());
        self.accounts.count_session(owner, private, true);
        parts.iter().for_each(|part| self.fleet.room.claim(part.agent, &part.amount));
        self.queue.claims.insert((self.now, id));
        if let Some(entry) = self.queue.get_mut(session) {
            entry.state = State::Claimed(Box::new(Claim { parts, victims, since: self.now, expires }));
        }
    }

    /// Gives a claim up.
    pub(super) fn release_claim(&mut self, session: SessionNo) -> Option<Claim> {
        let entry = self.queue.get_mut(session)?;
        let State::Claimed(claim) = std::mem::replace(&mut entry.state, State::Early) else { return None };
        let (id, owner, number) = (entry.id, entry.owner, entry.request);
        self.queue.claims.remove(&(claim.since, id));
        claim.parts.iter().for_each(|part| self.fleet.room.unclaim(part.agent, &part.amount));
        let request = self.requests.get(number)?;
        let (total, private) = (request.total.clone(), request.private());
        self.accounts.count_session(owner, private, false);
        let lanes = self.accounts.discharge(owner, &total, private);
        self.queue.unpark(lanes);
        Some(*claim)
    }

    /// Places sessions whose victims have made room, first claimed first served; gives up claims that have lost their sense.
    pub(super) fn admit_claims(&mut self, plan: &mut Plan) {
        let claims: Vec<_> = self.queue.claims.iter().copied().collect();
        for (_, id) in claims {
            let Some(number) = self.queue.find(id) else { continue };
            let Some(State::Claimed(claim)) = self.queue.get(number).map(|entry| &entry.state) else {
                continue;
            };
            let lost = claim.parts.iter().any(|part| !self.fleet.node(part.agent).usable());
            if self.has_come_true(claim) && !lost {
                self.take_up(number, plan);
            } else if lost || claim.expires <= self.now {
                self.give_up(number);
            }
        }
    }

    /// Whether the agents really have the room, other claims left aside.
    fn has_come_true(&self, claim: &Claim) -> bool {
        let mut rows: Vec<(u32, Vec<Units>)> = Vec::new();
        for part in &claim.parts {
            if !rows.iter().any(|(agent, _)| *agent == part.agent) {
                rows.push((part.agent, self.unclaimed(part.agent)));
            }
        }
        claim.parts.iter().all(|part| {
            let row = rows.iter_mut().find(|(agent, _)| *agent == part.agent);
            row.is_some_and(|(_, row)| {
                let fits = part.amount.fits(row);
                part.amount.take_from(row);
                fits
            })
        })
    }

    /// What no session holds of an agent.
    fn unclaimed(&self, agent: u32) -> Vec<Units> {
        let mut row = self.fleet.room.free(agent).to_vec();
        for (_, id) in &self.queue.claims {
            let entry = self.queue.find(*id).and_then(|number| self.queue.get(number));
            if let Some(State::Claimed(claim)) = entry.map(|entry| &entry.state) {
                let here = claim.parts.iter().filter(|part| part.agent == agent);
                here.for_each(|part| part.amount.add_to(&mut row));
            }
        }
        row
    }

    fn take_up(&mut self, number: SessionNo, plan: &mut Plan) {
        let Some(claim) = self.release_claim(number) else { return };
        let Some(entry) = self.queue.get(number) else { return };
        let Some(request) = self.requests.get(entry.request) else { return };
        let (id, kernels, ends) = (entry.id, request.kernels.len(), self.end_from_now(request.max_runtime()));
        claim.parts.iter().for_each(|part| self.take(number, part, ends));
        plan.placements.push(Placement { session: id, agents: self.agent_ids(&claim.parts, kernels) });
        self.settle_in(number, claim.parts, self.now, ends);
    }

    /// Back to the queue, and no new attempt for a while.
    fn give_up(&mut self, number: SessionNo) {
        if self.release_claim(number).is_none() {
            return;
        }
        let cooldown =
            self.options.preemption.as_ref().and_then(|options| options.cooldown.num_microseconds());
        let again = self.now.saturating_add(cooldown.unwrap_or(0));
        let Some(entry) = self.queue.get_mut(number) else { return };
        entry.told = false;
        entry.extras.get_or_insert_default().no_preemption_before = Some(again);
        let (owner, request) = (entry.owner, entry.request);
        self.count_pending(owner, request, true);
        self.queue.fresh.push(number);
        self.route(number);
    }
}
