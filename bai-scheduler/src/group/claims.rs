//! Claims: room that is promised to a session whose victims still end. Nobody else gets it.

use bai_core::SessionId;

use super::Group;
use crate::model::Claim;
use crate::plan::{GivenUp, Placement, Plan};
use crate::queue::{SessionNo, Stake, State};
use crate::slots::Units;

impl Group {
    /// A waiting session, already out of its lane, gets a claim.
    pub(super) fn keep(&mut self, session: SessionNo, stake: Stake) {
        let Some(entry) = self.queue.get(session) else { return };
        let (id, owner, number) = (entry.id, entry.owner, entry.request);
        let Some(request) = self.requests.get(number) else { return };
        let (total, private) = (request.total.clone(), request.private());
        self.accounts.charge(owner, &total, private, self.table.width());
        self.accounts.count_session(owner, private, true);
        stake.parts.iter().for_each(|part| self.fleet.room.claim(part.agent, &part.amount));
        self.queue.claims.insert((stake.since, id));
        self.queue.count_victims(&stake.victims, true);
        if let Some(entry) = self.queue.get_mut(session) {
            entry.state = State::Claimed(Box::new(stake));
        }
    }

    /// A session that waits has this claim already, as others know.
    pub(super) fn recall(&mut self, session: SessionId, claim: &Claim) {
        let Some(number) = self.queue.find(session) else { return };
        let queued = match self.queue.get(number).map(|entry| &entry.state) {
            Some(State::Queued(_) | State::Early) => true,
            Some(State::Claimed(stake)) if !self.is_same(number, stake, claim) => false,
            _ => return,
        };
        let agents: Vec<_> = claim.agents.iter().cloned().map(Some).collect();
        let request = self.queue.get(number).and_then(|entry| self.requests.get(entry.request));
        if request.is_none_or(|request| request.kernels.len() != agents.len()) {
            return;
        }
        let Some(parts) = self.parts_of(number, &agents) else { return };
        if queued {
            self.leave_queue(number);
        } else {
            self.release_claim(number);
        }
        let (since, expires) = (claim.since.timestamp_micros(), claim.expires.timestamp_micros());
        self.keep(number, Stake { parts, victims: claim.victims.clone(), since, expires, named: false });
    }

    fn is_same(&self, session: SessionNo, stake: &Stake, claim: &Claim) -> bool {
        stake.since == claim.since.timestamp_micros()
            && self.agents_for(session, &stake.parts) == claim.agents
    }

    /// Gives a claim up.
    pub(super) fn release_claim(&mut self, session: SessionNo) -> Option<Stake> {
        let entry = self.queue.get_mut(session)?;
        if !matches!(entry.state, State::Claimed(_)) {
            return None;
        }
        let State::Claimed(stake) = std::mem::replace(&mut entry.state, State::Early) else { return None };
        let (id, owner, number) = (entry.id, entry.owner, entry.request);
        self.queue.claims.remove(&(stake.since, id));
        self.queue.count_victims(&stake.victims, false);
        stake.parts.iter().for_each(|part| self.fleet.room.unclaim(part.agent, &part.amount));
        let request = self.requests.get(number)?;
        let (total, private) = (request.total.clone(), request.private());
        self.accounts.count_session(owner, private, false);
        let lanes = self.accounts.discharge(owner, &total, private);
        self.queue.unpark(lanes);
        Some(*stake)
    }

    /// Places sessions whose victims have made room, first claimed first served; gives up claims that have lost their sense.
    pub(super) fn admit_claims(&mut self, plan: &mut Plan) {
        let claims: Vec<_> = self.queue.claims.iter().copied().collect();
        for (_, id) in claims {
            let Some(number) = self.queue.find(id) else { continue };
            let Some(State::Claimed(stake)) = self.queue.get(number).map(|entry| &entry.state) else {
                continue;
            };
            let lost = stake.parts.iter().any(|part| !self.fleet.node(part.agent).usable());
            if self.has_come_true(stake) && !lost {
                self.take_up(number, plan);
            } else if lost || stake.expires <= self.now {
                self.give_up(number, plan);
            } else if !stake.named {
                self.name_again(number, plan);
            }
        }
        self.wake_grown();
    }

    /// Whoever made the claim may not have come to end the victims: those that stay are named once more.
    fn name_again(&mut self, number: SessionNo, plan: &mut Plan) {
        let Some(grace) = self.options.preemption.as_ref().map(|preemption| preemption.grace) else { return };
        let Some(entry) = self.queue.get(number) else { return };
        let State::Claimed(stake) = &entry.state else { return };
        let mut preempted = self.preempted(number, entry.id, stake, grace);
        preempted.victims.retain(|victim| self.stays_on(*victim, stake));
        if !preempted.victims.is_empty() {
            plan.preemptions.push(preempted);
        }
        if let Some(State::Claimed(stake)) = self.queue.get_mut(number).map(|entry| &mut entry.state) {
            stake.named = true;
        }
    }

    /// Whether a session holds something of the agents of a claim, and is not on its way to its end.
    fn stays_on(&self, session: SessionId, stake: &Stake) -> bool {
        let entry = self.queue.find(session).and_then(|number| self.queue.get(number));
        let Some(State::Held(held)) = entry.map(|entry| &entry.state) else { return false };
        let here = |agent: u32| stake.parts.iter().any(|part| part.agent == agent);
        held.counted && held.parts.iter().any(|part| here(part.agent) && !part.amount.is_zero())
    }

    /// Whether the agents really have the room, other claims left aside.
    fn has_come_true(&self, stake: &Stake) -> bool {
        let mut rows: Vec<(u32, Vec<Units>)> = Vec::new();
        for part in &stake.parts {
            if !rows.iter().any(|(agent, _)| *agent == part.agent) {
                rows.push((part.agent, self.unclaimed(part.agent)));
            }
        }
        stake.parts.iter().all(|part| {
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
            if let Some(State::Claimed(stake)) = entry.map(|entry| &entry.state) {
                let here = stake.parts.iter().filter(|part| part.agent == agent);
                here.for_each(|part| part.amount.add_to(&mut row));
            }
        }
        row
    }

    fn take_up(&mut self, number: SessionNo, plan: &mut Plan) {
        let Some(stake) = self.release_claim(number) else { return };
        let Some(entry) = self.queue.get(number) else { return };
        let Some(request) = self.requests.get(entry.request) else { return };
        let (id, kernels, ends) = (entry.id, request.kernels.len(), self.end_from_now(request.max_runtime()));
        stake.parts.iter().for_each(|part| self.take(number, part, ends));
        plan.placements.push(Placement { session: id, agents: self.agent_ids(&stake.parts, kernels) });
        self.settle_in(number, stake.parts, self.now, ends);
    }

    /// Back to the queue, and no new attempt for a while.
    fn give_up(&mut self, number: SessionNo, plan: &mut Plan) {
        let Some(session) = self.queue.get(number).map(|entry| entry.id) else { return };
        let cooldown =
            self.options.preemption.as_ref().and_then(|options| options.cooldown.num_microseconds());
        let again_at = Self::time(self.now.saturating_add(cooldown.unwrap_or(0)));
        let given_up = GivenUp { session, again_at };
        self.wait_without(&given_up);
        plan.given_up.push(given_up);
    }

    /// A session has no claim any more, and waits on.
    pub(super) fn wait_without(&mut self, given_up: &GivenUp) {
        let Some(number) = self.queue.find(given_up.session) else { return };
        let had_claim = self.release_claim(number).is_some();
        let Some(entry) = self.queue.get_mut(number) else { return };
        if matches!(entry.state, State::Held(_)) {
            return;
        }
        let again_at = given_up.again_at.timestamp_micros();
        entry.extras.get_or_insert_default().no_preemption_before = Some(again_at);
        if had_claim {
            entry.told = false;
            let (owner, request) = (entry.owner, entry.request);
            self.count_pending(owner, request, true);
            self.queue.fresh.push(number);
            self.route(number);
        }
    }
}
