//! Room for all kernels of a request at once.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Group, Pools};
use crate::fleet::{Fleet, Wishes};
use crate::request::{Need, Request};
use crate::room::AgentNo;
use crate::slots::Units;

/// What is free of the agents, less what kernels placed before have taken.
pub(super) struct Packing<R> {
    rows: R,
    taken: BTreeMap<AgentNo, Vec<Units>>,
}

/// Where the packing got stuck.
#[derive(Debug)]
pub(super) struct Stuck {
    /// The need of which the last kernel found no agent.
    pub(super) need: usize,
    /// Kernels, or groups of kernels that share an agent, that did find one.
    pub(super) placed: usize,
}

impl<'r, R: Fn(AgentNo) -> Cow<'r, [Units]>> Packing<R> {
    /// `rows` tells what is free of an agent.
    pub(super) fn new(rows: R) -> Self {
        Self { rows, taken: BTreeMap::new() }
    }

    /// Looks at what is left of an agent.
    pub(super) fn with_row<T>(&self, agent: AgentNo, look: impl FnOnce(&[Units]) -> T) -> T {
        match self.taken.get(&agent) {
            Some(row) => look(row),
            None => look(&(self.rows)(agent)),
        }
    }

    /// An agent for each kernel, the first in the order of the ids that has room. Exact for kernels that are all alike.
    pub(super) fn pack(
        &mut self,
        request: &Request,
        pools: &Pools,
        fleet: &Fleet,
        wishes: Wishes<'_>,
    ) -> Result<Vec<AgentNo>, Stuck> {
        let mut agents = vec![0; request.kernels.len()];
        let mut placed = 0;
        for (at, (need, pool)) in request.needs.iter().zip(pools).enumerate() {
            let members = fleet.pool(*pool).members.iter().copied();
            let mut candidates = members.filter(|agent| wishes.allows(*agent)).peekable();
            for time in 0..need.times() {
                let agent = loop {
                    let Some(agent) = candidates.peek().copied() else {
                        return Err(Stuck { need: at, placed });
                    };
                    if self.take(agent, need) {
                        break agent;
                    }
                    candidates.next();
                };
                placed += 1;
                let kernels = if need.together { &need.kernels[..] } else { &need.kernels[time..=time] };
                for kernel in kernels {
                    agents[*kernel] = agent;
                }
            }
        }
        Ok(agents)
    }

    pub(super) fn take(&mut self, agent: AgentNo, need: &Need) -> bool {
        if let Some(row) = self.taken.get_mut(&agent) {
            let fits = need.amounts.fits(row);
            if fits {
                need.amounts.take_from(row);
            }
            return fits;
        }
        let row = (self.rows)(agent);
        let fits = need.amounts.fits(&row);
        if fits {
            let mut row = row.into_owned();
            need.amounts.take_from(&mut row);
            self.taken.insert(agent, row);
        }
        fits
    }
}

impl Group {
    /// The pools of the needs of a request.
    pub(super) fn pools_of(&mut self, request: u32) -> Pools {
        let Some(request) = self.requests.get_mut(request) else { return Pools::new() };
        let state = self.fleet.state();
        if request.pools.0 != state {
            let pools = request.needs.iter().map(|need| self.fleet.pool_of(&need.site)).collect();
            request.pools = (state, pools);
        }
        request.pools.1.clone()
    }

    /// Whether empty agents could take a request.
    pub(super) fn possible(&mut self, number: u32) -> bool {
        let pools = self.pools_of(number);
        let Some(request) = self.requests.get(number) else { return false };
        if let Some(possible) = request.possible {
            return possible;
        }
        let room = &self.fleet.room;
        let mut packing = Packing::new(|agent| Cow::Borrowed(room.capacity(agent)));
        let possible = packing.pack(request, &pools, &self.fleet, Wishes::default()).is_ok();
        if let Some(request) = self.requests.get_mut(number) {
            request.possible = Some(possible);
        }
        possible
    }
}
