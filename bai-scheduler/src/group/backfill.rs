//! Reservations (W-1): the session that waits longest for room gets some before others take it.
//!
//! When the ends of the sessions in its way are known, the room is kept from the soonest time on at which there is enough;
//! whoever ends before may use it until then. When they are not, the session is promised the agents that come closest, and
//! all of their free room that it needs is kept from now on: others may only use what it cannot.

use std::borrow::Cow;

use bai_core::AgentId;

use super::pack::Packing;
use super::place::wishes_of;
use super::{Group, Pools};
use crate::plan::{Plan, Reservation};
use crate::queue::{Seat, SessionNo};
use crate::request::Request;
use crate::room::{AgentNo, Hold, NEVER};
use crate::slots::{Amounts, Units};

/// Room that is to be kept: from when, and how much of which agents.
struct Promise {
    from: i64,
    parts: Vec<(AgentNo, Amounts)>,
}

impl Group {
    pub(super) fn reserve_for(&mut self, seat: Seat, plan: &mut Plan) {
        let Some(number) = self.queue.get(seat.2).map(|entry| entry.request) else { return };
        let pools = self.pools_of(number);
        let Some(request) = self.requests.get(number) else { return };
        let length = request.max_runtime();
        let promise =
            if request.gang() { self.gang_promise(seat.2, &pools) } else { self.one_promise(seat.2, &pools) };
        let Some(promise) = promise else { return };
        let to = if length == NEVER { NEVER } else { promise.from.saturating_add(length) };
        let mut agents: Vec<AgentId> = Vec::with_capacity(promise.parts.len());
        for (agent, amount) in promise.parts {
            agents.push(self.fleet.node(agent).id.clone());
            self.fleet.room.reserve(agent, Hold { from: promise.from, to, amount });
        }
        agents.sort();
        let starts_at = (promise.from != NEVER).then(|| Self::time(promise.from));
        plan.reservations.push(Reservation { session: seat.1, agents, starts_at });
    }

    /// For a session that needs one agent.
    fn one_promise(&self, session: SessionNo, pools: &Pools) -> Option<Promise> {
        let entry = self.queue.get(session)?;
        let request = self.requests.get(entry.request)?;
        let (need, pool) = (request.needs.first()?, pools.first()?);
        let wishes = wishes_of(entry, &self.members);
        let mut best: Option<(i64, AgentNo)> = None;
        for agent in &self.fleet.pool(*pool).members {
            let before = best.map_or(NEVER, |(at, _)| at);
            if wishes.allows(*agent)
                && let Some(at) =
                    self.fleet.room.soonest(*agent, &need.amounts, request.max_runtime(), before)
            {
                best = Some((at, *agent));
            }
        }
        let (from, agent) = if let Some(best) = best {
            best
        } else {
            let able = self.able(session, *pool, &need.amounts);
            let lack = |agent: &AgentNo| lack(&need.amounts, self.fleet.room.view(*agent));
            (NEVER, able.min_by_key(lack)?)
        };
        Some(Promise { from, parts: vec![(agent, (*need.amounts).clone())] })
    }

    /// For a session that needs several agents at once.
    fn gang_promise(&self, session: SessionNo, pools: &Pools) -> Option<Promise> {
        let times = self.end_times(pools);
        // Later there is never less, so the soonest time can be searched by halves.
        let (mut low, mut high) = (0, times.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.pack_at(session, pools, times[middle]).is_some() {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let Some(from) = times.get(low).copied() else { return self.gang_hope(session, pools) };
        let agents = self.pack_at(session, pools, from)?;
        let request = self.requests.get(self.queue.get(session)?.request)?;
        Some(Promise { from, parts: parts(request, &agents) })
    }

    /// The known ends of all sessions on the agents, in order.
    fn end_times(&self, pools: &Pools) -> Vec<i64> {
        let members = pools.iter().flat_map(|pool| &self.fleet.pool(*pool).members);
        let runs = members.flat_map(|agent| self.fleet.room.runs(*agent));
        let soonest = self.now.saturating_add(1);
        let mut times: Vec<_> =
            runs.map(|run| run.ends).filter(|end| *end != NEVER).map(|end| end.max(soonest)).collect();
        times.sort_unstable();
        times.dedup();
        times
    }

    /// Agents for all kernels at a time to come. Agents with reservations are left alone.
    fn pack_at(&self, session: SessionNo, pools: &Pools, at: i64) -> Option<Vec<AgentNo>> {
        let room = &self.fleet.room;
        self.pack_rows(session, pools, |agent| {
            if room.is_reserved(agent) { Cow::Borrowed(&[][..]) } else { room.free_later(agent, at).into() }
        })
    }

    fn pack_rows<'a>(
        &'a self,
        session: SessionNo,
        pools: &Pools,
        rows: impl Fn(AgentNo) -> Cow<'a, [Units]>,
    ) -> Option<Vec<AgentNo>> {
        let entry = self.queue.get(session)?;
        let request = self.requests.get(entry.request)?;
        let wishes = wishes_of(entry, &self.members);
        Packing::new(rows).pack(request, pools, &self.fleet, wishes).ok()
    }

    /// Nobody knows when: the agents that come closest, as many as would do if they were empty.
    fn gang_hope(&self, session: SessionNo, pools: &Pools) -> Option<Promise> {
        let request = self.requests.get(self.queue.get(session)?.request)?;
        let mut packing = Packing::new(|agent: AgentNo| Cow::Borrowed(self.fleet.room.capacity(agent)));
        let mut agents = vec![0; request.kernels.len()];
        for (need, pool) in request.needs.iter().zip(pools) {
            let mut closest = self.closest(session, *pool, &need.amounts).into_iter().peekable();
            for kernel in &need.kernels {
                while closest.peek().is_some_and(|agent| !packing.take(*agent, need)) {
                    closest.next();
                }
                let Some(agent) = closest.peek() else {
                    // The closest agent for one kernel was the only one for another: leave closeness aside.
                    let agents = self
                        .pack_rows(session, pools, |agent| Cow::Borrowed(self.fleet.room.capacity(agent)))?;
                    return Some(Promise { from: NEVER, parts: parts(request, &agents) });
                };
                agents[*kernel] = *agent;
            }
        }
        Some(Promise { from: NEVER, parts: parts(request, &agents) })
    }

    /// Agents that could take a need if they were empty, those first that lack the least.
    fn closest(&self, session: SessionNo, pool: u32, need: &Amounts) -> Vec<AgentNo> {
        let mut agents: Vec<_> = self.able(session, pool, need).collect();
        // In the order of the ids already, which the stable sort keeps for equals.
        agents.sort_by_cached_key(|agent| lack(need, self.fleet.room.view(*agent)));
        agents
    }

    /// Agents that could take a need if they were empty, in the order of the ids.
    fn able<'a>(
        &'a self,
        session: SessionNo,
        pool: u32,
        need: &'a Amounts,
    ) -> impl Iterator<Item = AgentNo> + 'a {
        let wishes = self.queue.get(session).map(|entry| wishes_of(entry, &self.members));
        let allowed = move |agent: &AgentNo| wishes.is_none_or(|wishes| wishes.allows(*agent));
        let members = self.fleet.pool(pool).members.iter().copied();
        members.filter(allowed).filter(|agent| need.fits(self.fleet.room.capacity(*agent)))
    }
}

/// How much of a need is missing, in millionths of what is needed, all slots together.
fn lack(need: &Amounts, free: &[Units]) -> i128 {
    let lacking = need.iter().map(|(slot, units)| {
        let short = units.saturating_sub(free.get(slot.index()).copied().unwrap_or(0));
        if short <= 0 { 0 } else { i128::from(short) * 1_000_000 / i128::from(units) }
    });
    lacking.sum()
}

/// What each agent gives to a gang.
fn parts(request: &Request, agents: &[AgentNo]) -> Vec<(AgentNo, Amounts)> {
    let mut parts: Vec<(AgentNo, Amounts)> = Vec::new();
    for (agent, amount) in agents.iter().zip(&request.kernels) {
        match parts.iter_mut().find(|(known, _)| known == agent) {
            Some((_, sum)) => sum.add_all(amount),
            None => parts.push((*agent, (**amount).clone())),
        }
    }
    parts
}
