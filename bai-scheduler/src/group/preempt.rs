//! Pushing sessions out (spec scheduler.md, section 12).
//!
//! A victim has a strictly lower job priority than the session that needs its room, so no chain of preemptions comes back to
//! where it started: whoever was pushed out can never push out the one it gave way to. The room is claimed at once, so
//! nobody else takes it either, and after finitely many steps nothing moves any more.

use std::collections::{BTreeMap, BTreeSet};

use bai_core::SessionId;
use chrono::TimeDelta;
use smallvec::SmallVec;

use super::Group;
use super::pass::Course;
use super::place::wishes_of;
use crate::accounts::OwnerAccounts;
use crate::options::{Preemption, VictimOrder, VictimScope};
use crate::plan::{Plan, Preempted};
use crate::queue::{Entry, Held, Part, Seat, SessionNo, Stake, State};
use crate::request::Need;
use crate::room::AgentNo;
use crate::sequence::dominant;
use crate::slots::{Amounts, Units};

/// Sessions that are pushed out.
type Victims = BTreeMap<SessionNo, SessionId>;

/// A session that may be pushed out.
#[derive(Debug, Clone)]
struct Victim {
    number: SessionNo,
    id: SessionId,
    job_priority: i32,
    /// The smallest goes first.
    order: i128,
    cost: u128,
}

/// Victims on one agent that make enough room for one need.
struct Sacrifice {
    agent: AgentNo,
    victims: Vec<Victim>,
}

/// What a gang has gathered so far.
#[derive(Default)]
struct Gathered {
    victims: Victims,
    /// By agent: what victims free and what kernels take.
    freed: BTreeMap<AgentNo, Amounts>,
    taken: BTreeMap<AgentNo, Amounts>,
}

impl Gathered {
    fn row(&self, group: &Group, agent: AgentNo) -> Vec<Units> {
        let mut row = group.fleet.room.view(agent).to_vec();
        if let Some(freed) = self.freed.get(&agent) {
            freed.add_to(&mut row);
        }
        if let Some(taken) = self.taken.get(&agent) {
            taken.take_from(&mut row);
        }
        row
    }

    fn add(&mut self, group: &Group, sacrifice: &Sacrifice, need: &Need) {
        for victim in &sacrifice.victims {
            self.victims.insert(victim.number, victim.id);
            for (agent, amount) in group.holdings(victim.number) {
                self.freed.entry(agent).or_default().add_all(&amount);
            }
        }
        self.taken.entry(sacrifice.agent).or_default().add_all(&need.amounts);
    }
}

impl Group {
    /// Looks for sessions to push out so that the first session of a lane can start. Tells whether there are any.
    pub(super) fn preempt(&mut self, lane: u32, seat: Seat, course: &mut Course, plan: &mut Plan) -> bool {
        let Some(preemption) = self.options.preemption.clone() else { return false };
        let waits = self.queue.get(seat.2).and_then(|entry| entry.extras.as_ref());
        if waits.and_then(|extras| extras.no_preemption_before).is_some_and(|again| self.now < again) {
            return false;
        }
        course.attempts -= 1;
        let Some((parts, victims)) = self.gather(seat.2, &preemption) else { return false };
        self.queue.unseat(lane, seat);
        if let Some(entry) = self.queue.get(seat.2) {
            let (owner, request) = (entry.owner, entry.request);
            self.count_pending(owner, request, false);
        }
        let mut victims: Vec<_> = victims.into_values().collect();
        victims.sort_unstable();
        let patience = (preemption.grace + preemption.timeout).num_microseconds().unwrap_or(i64::MAX);
        let expires = self.now.saturating_add(patience);
        let stake = Stake { parts, victims, since: self.now, expires, named: true };
        plan.preemptions.push(self.preempted(seat.2, seat.1, &stake, preemption.grace));
        self.keep(seat.2, stake);
        true
    }

    /// A claim in the words of a plan.
    pub(super) fn preempted(
        &self,
        number: SessionNo,
        beneficiary: SessionId,
        stake: &Stake,
        grace: TimeDelta,
    ) -> Preempted {
        Preempted {
            beneficiary,
            agents: self.agents_for(number, &stake.parts),
            victims: stake.victims.clone(),
            grace,
            since: Self::time(stake.since),
            expires: Self::time(stake.expires),
        }
    }

    /// Room for all kernels, with the fewest and least sessions pushed out.
    fn gather(
        &mut self,
        session: SessionNo,
        preemption: &Preemption,
    ) -> Option<(SmallVec<[Part; 1]>, Victims)> {
        let number = self.queue.get(session)?.request;
        let pools = self.pools_of(number);
        let request = self.requests.get(number)?;
        let mut gathered = Gathered::default();
        let mut parts: SmallVec<[(usize, Part); 4]> = SmallVec::new();
        for (need, pool) in request.needs.iter().zip(&pools) {
            for time in 0..need.times() {
                let sacrifice = self.cheapest(session, need, *pool, &gathered, preemption)?;
                gathered.add(self, &sacrifice, need);
                let part = Part { agent: sacrifice.agent, amount: need.amounts.clone() };
                parts.push((need.kernels.get(time).copied().unwrap_or(0), part));
            }
        }
        parts.sort_by_key(|(kernel, _)| *kernel);
        let parts = parts.into_iter().map(|(_, part)| part).collect();
        (!gathered.victims.is_empty()).then_some((parts, gathered.victims))
    }

    /// The agent on which the least is lost.
    fn cheapest(
        &self,
        session: SessionNo,
        need: &Need,
        pool: u32,
        gathered: &Gathered,
        preemption: &Preemption,
    ) -> Option<Sacrifice> {
        let entry = self.queue.get(session)?;
        let wishes = wishes_of(entry, &self.members);
        let members = self.fleet.pool(pool).members.iter().copied();
        let able =
            |agent: &AgentNo| wishes.allows(*agent) && need.amounts.fits(self.fleet.room.capacity(*agent));
        let sacrifices = members
            .filter(able)
            .filter_map(|agent| self.sacrifice_on(agent, entry, need, gathered, preemption));
        let score = |sacrifice: &Sacrifice| {
            let highest = sacrifice.victims.iter().map(|victim| victim.job_priority).max();
            let (count, cost) =
                (sacrifice.victims.len(), sacrifice.victims.iter().map(|victim| victim.cost).sum::<u128>());
            let fewest = if preemption.order == VictimOrder::FewestSessions { count } else { 0 };
            (highest, fewest, cost, count, self.fleet.rank(sacrifice.agent))
        };
        sacrifices.min_by_key(score)
    }

    fn sacrifice_on(
        &self,
        agent: AgentNo,
        entry: &Entry,
        need: &Need,
        gathered: &Gathered,
        preemption: &Preemption,
    ) -> Option<Sacrifice> {
        let mut row = gathered.row(self, agent);
        let mut victims: Vec<(Victim, Amounts)> = Vec::new();
        if !need.amounts.fits(&row) {
            let mut candidates = self.candidates_on(agent, entry, gathered, preemption);
            candidates.sort_by_key(|(victim, _)| (victim.job_priority, victim.order, victim.id));
            for (victim, amount) in candidates {
                amount.add_to(&mut row);
                victims.push((victim, amount));
                if need.amounts.fits(&row) {
                    break;
                }
            }
            if !need.amounts.fits(&row) {
                return None;
            }
        }
        // Some of the first may not be needed after all: spare the most valuable ones.
        for at in (0..victims.len()).rev() {
            victims[at].1.take_from(&mut row);
            if need.amounts.fits(&row) {
                victims.remove(at);
            } else {
                victims[at].1.add_to(&mut row);
            }
        }
        Some(Sacrifice { agent, victims: victims.into_iter().map(|(victim, _)| victim).collect() })
    }

    /// Sessions on an agent that may be pushed out, with what they hold of it.
    fn candidates_on(
        &self,
        agent: AgentNo,
        entry: &Entry,
        gathered: &Gathered,
        preemption: &Preemption,
    ) -> Vec<(Victim, Amounts)> {
        let sessions: BTreeSet<_> = self.fleet.room.runs(agent).iter().map(|run| run.session).collect();
        let mut candidates = Vec::new();
        for number in sessions.into_iter().filter(|number| !gathered.victims.contains_key(number)) {
            if let Some(victim) = self.victim(number, entry, preemption) {
                let here = self.holdings(number).into_iter().filter(|(on, _)| *on == agent);
                let mut amount = Amounts::default();
                here.for_each(|(_, part)| amount.add_all(&part));
                candidates.push((victim, amount));
            }
        }
        candidates
    }

    fn victim(&self, number: SessionNo, entry: &Entry, preemption: &Preemption) -> Option<Victim> {
        let other = self.queue.get(number)?;
        let State::Held(held) = &other.state else { return None };
        let min_runtime = preemption.min_runtime.num_microseconds().unwrap_or(i64::MAX);
        let ran = self.now.saturating_sub(held.since);
        let in_scope =
            in_scope(preemption.scope, self.accounts.owner(entry.owner), self.accounts.owner(other.owner));
        let fair = other.preemptible
            && !self.queue.has_to_go(other.id)
            && other.job_priority < entry.job_priority
            && ran >= min_runtime
            && in_scope;
        fair.then(|| self.priced(number, other, held, preemption.order))
    }

    fn priced(&self, number: SessionNo, other: &Entry, held: &Held, order: VictimOrder) -> Victim {
        let mut row = vec![0; self.table.width()];
        held.charged.add_to(&mut row);
        let share = dominant(&row, self.fleet.total());
        let ran = self.now.saturating_sub(held.since).max(0);
        let lost = u128::from(share) * u128::from(ran.unsigned_abs());
        let (order, cost) = match order {
            VictimOrder::LeastWorkLost => (i128::try_from(lost).unwrap_or(i128::MAX), lost),
            VictimOrder::Oldest => (i128::from(held.since), lost),
            VictimOrder::Newest => (-i128::from(held.since), lost),
            VictimOrder::FewestSessions => (-i128::from(share), u128::from(share)),
            VictimOrder::SmallestResources => (i128::from(share), u128::from(share)),
        };
        Victim { number, id: other.id, job_priority: other.job_priority, order, cost }
    }

    /// What a session holds, by agent.
    fn holdings(&self, number: SessionNo) -> Vec<(AgentNo, Amounts)> {
        match self.queue.get(number).map(|entry| &entry.state) {
            Some(State::Held(held)) => {
                held.parts.iter().map(|part| (part.agent, (*part.amount).clone())).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn in_scope(scope: VictimScope, a: OwnerAccounts, b: OwnerAccounts) -> bool {
    match scope {
        VictimScope::User => a.user == b.user,
        VictimScope::Project => a.project == b.project,
        VictimScope::Domain => a.domain == b.domain,
        VictimScope::ResourceGroup => true,
    }
}
