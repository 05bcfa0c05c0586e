//! A group beside a plain record of the facts that it was told. The record can build a fresh group at any time.

use std::collections::{BTreeMap, BTreeSet};

use bai_core::slots::{Amount, ResourceSlots, SlotType, SlotTypes};
use bai_core::{AgentId, SessionId};
use bai_scheduler::testing::at;
use bai_scheduler::{
    Agent, Claim, Delta, GivenUp, Group, Holder, Limits, Options, Outcome, Plan, Running, Session,
};

pub(crate) struct World {
    pub(crate) group: Group,
    pub(crate) options: Options,
    pub(crate) agents: BTreeMap<AgentId, Agent>,
    pub(crate) pending: BTreeMap<SessionId, Session>,
    pub(crate) running: BTreeMap<SessionId, Running>,
    pub(crate) limits: BTreeMap<Holder, Limits>,
    /// Seconds since the epoch.
    pub(crate) now: i64,
}

pub(crate) fn types() -> SlotTypes {
    [("cpu", SlotType::Count), ("mem", SlotType::Bytes), ("cuda.device", SlotType::Count)]
        .into_iter()
        .collect()
}

impl World {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            group: Group::new(options.clone(), types()),
            options,
            agents: BTreeMap::new(),
            pending: BTreeMap::new(),
            running: BTreeMap::new(),
            limits: BTreeMap::new(),
            now: 1_000_000,
        }
    }

    pub(crate) fn with_agents(options: Options, agents: &[Agent]) -> Self {
        let mut world = Self::new(options);
        for agent in agents {
            world.join(agent.clone());
        }
        world
    }

    pub(crate) fn apply(&mut self, delta: Delta) {
        self.group.apply(delta).unwrap();
    }

    pub(crate) fn join(&mut self, agent: Agent) {
        self.agents.insert(agent.id.clone(), agent.clone());
        self.apply(Delta::Agent(Box::new(agent)));
    }

    pub(crate) fn enqueue(&mut self, session: Session) {
        self.pending.insert(session.id, session.clone());
        self.apply(Delta::Enqueued(Box::new(session)));
    }

    pub(crate) fn limit(&mut self, holder: Holder, limits: Limits) {
        self.limits.insert(holder.clone(), limits.clone());
        self.apply(Delta::Limits(holder, Box::new(limits)));
    }

    pub(crate) fn end(&mut self, session: SessionId, outcome: Outcome) {
        self.pending.remove(&session);
        self.running.remove(&session);
        self.note_outcome(session, outcome);
        self.apply(Delta::Ended(session, outcome));
    }

    /// The record of those who depend on an ended session.
    fn note_outcome(&mut self, session: SessionId, outcome: Outcome) {
        let state = match outcome {
            Outcome::Succeeded => bai_scheduler::DependencyState::Succeeded,
            Outcome::Failed => bai_scheduler::DependencyState::Failed,
        };
        let waiting = self.pending.values_mut().flat_map(|session| &mut session.dependencies);
        waiting.filter(|dependency| dependency.id == session).for_each(|dependency| dependency.state = state);
    }

    /// Back to the queue, as after a lost race.
    pub(crate) fn requeue(&mut self, session: SessionId, failed: Vec<AgentId>) {
        let Some(mut running) = self.running.remove(&session) else { return };
        running.session.avoid.extend(failed.iter().cloned());
        self.pending.insert(session, running.session);
        self.apply(Delta::Requeued(session, failed));
    }

    /// A claim could not be recorded.
    pub(crate) fn void(&mut self, session: SessionId) -> Claim {
        let claim = self.pending.get_mut(&session).unwrap().claim.take().expect("it has a claim");
        self.apply(Delta::Requeued(session, Vec::new()));
        claim
    }

    /// A claim that somebody else has recorded.
    pub(crate) fn claim(&mut self, session: SessionId, claim: Claim) {
        self.pending.get_mut(&session).unwrap().claim = Some(claim.clone());
        self.apply(Delta::Claimed(session, Box::new(claim)));
    }

    /// Waiting sessions with claims.
    pub(crate) fn claimants(&self) -> Vec<SessionId> {
        let claimants = self.pending.iter().filter(|(_, session)| session.claim.is_some());
        claimants.map(|(id, _)| *id).collect()
    }

    /// Sessions that hold something and have to go for a claim.
    pub(crate) fn victims(&self) -> Vec<SessionId> {
        let claims = self.pending.values().filter_map(|session| session.claim.as_ref());
        let victims = claims.flat_map(|claim| &claim.victims);
        victims.filter(|victim| self.running.contains_key(victim)).copied().collect()
    }

    /// The victims that a plan names are told to go.
    pub(crate) fn tell_victims(&mut self, plan: &Plan) {
        for victim in plan.preemptions.iter().flat_map(|preempted| &preempted.victims) {
            self.running.get_mut(victim).expect("victims hold something").leaving = true;
            self.apply(Delta::Leaving(*victim));
        }
    }

    /// Another group takes over that knows the records only.
    pub(crate) fn restart(&mut self, seed: u64) {
        self.group = self.rebuilt(seed);
    }

    /// A pass, and everything it decides is done.
    pub(crate) fn pass(&mut self) -> Plan {
        let plan = self.group.pass(at(self.now));
        self.record(&plan);
        plan
    }

    pub(crate) fn pass_at(&mut self, seconds: i64) -> Plan {
        self.now = seconds;
        self.pass()
    }

    fn record(&mut self, plan: &Plan) {
        self.record_claims(plan);
        for placement in &plan.placements {
            let mut session = self.pending.remove(&placement.session).expect("only who waits is placed");
            (session.claim, session.no_preemption_before) = (None, None);
            let since = at(self.now);
            let ends_at = session.max_runtime.map(|limit| since + limit);
            let agents = placement.agents.iter().cloned().map(Some).collect();
            self.running
                .insert(placement.session, Running { session, agents, since, ends_at, leaving: false });
        }
        for cancellation in &plan.cancellations {
            self.end(cancellation.session, Outcome::Failed);
        }
    }

    /// A claim that somebody else has given up.
    pub(crate) fn give_up(&mut self, given_up: GivenUp) {
        self.record_given_up(&given_up);
        self.apply(Delta::GivenUp(given_up));
    }

    fn record_given_up(&mut self, given_up: &GivenUp) {
        let session = self.pending.get_mut(&given_up.session).expect("only who waits gives up");
        (session.claim, session.no_preemption_before) = (None, Some(given_up.again_at));
    }

    fn record_claims(&mut self, plan: &Plan) {
        plan.given_up.iter().for_each(|given_up| self.record_given_up(given_up));
        for preempted in &plan.preemptions {
            let session = self.pending.get_mut(&preempted.beneficiary).expect("only who waits has victims");
            session.claim.get_or_insert_with(|| preempted.claim());
        }
    }

    /// Ends everything that is over by now.
    pub(crate) fn end_due(&mut self) {
        let now = at(self.now);
        let over = |running: &Running| running.ends_at.is_some_and(|end| end <= now);
        let due: Vec<_> =
            self.running.iter().filter(|(_, running)| over(running)).map(|(id, _)| *id).collect();
        for id in due {
            self.end(id, Outcome::Succeeded);
        }
    }

    /// A group that learns all facts at once, in an order that follows from `seed`.
    pub(crate) fn rebuilt(&self, seed: u64) -> Group {
        let mut deltas: Vec<Delta> = Vec::new();
        deltas.extend(self.agents.values().map(|agent| Delta::Agent(Box::new(agent.clone()))));
        deltas.extend(self.running.values().map(|running| Delta::Holds(Box::new(running.clone()))));
        deltas.extend(self.pending.values().map(|session| Delta::Enqueued(Box::new(session.clone()))));
        let limits = self.limits.iter();
        deltas.extend(limits.map(|(holder, limits)| Delta::Limits(holder.clone(), Box::new(limits.clone()))));
        let last_used = self.group.last_used().iter();
        deltas.extend(last_used.map(|(arch, agent)| Delta::LastUsed(arch.clone(), agent.clone())));
        shuffle(&mut deltas, seed);
        let mut group = Group::new(self.options.clone(), types());
        for delta in deltas {
            group.apply(delta).unwrap();
        }
        group
    }

    /// No agent holds more than it has of anything, nor kernels beyond the limit.
    pub(crate) fn check_books(&self) {
        let mut held: BTreeMap<&AgentId, (ResourceSlots, u32)> = BTreeMap::new();
        for running in self.running.values() {
            for (kernel, agent) in running.session.kernels.iter().zip(&running.agents) {
                if let Some(agent) = agent {
                    let (slots, kernels) = held.entry(agent).or_default();
                    slots.add(&kernel.slots);
                    *kernels += 1;
                }
            }
        }
        for (agent, (slots, kernels)) in held {
            let capacity = &self.agents[agent].capacity;
            assert!(slots.normalized().fits_in(capacity), "{agent}: {slots} of {capacity}");
            assert!(
                self.options.max_kernels_per_agent.is_none_or(|most| kernels <= most),
                "{agent}: {kernels}"
            );
            // And the group's own books say the same, unless room is claimed ahead of time.
            if self.options.preemption.is_some() {
                continue;
            }
            let (_, free) = self.group.room_of(agent).unwrap();
            for (slot, capacity) in capacity {
                let expected = capacity.checked_sub(slots.get(slot.as_str())).unwrap();
                assert_eq!(free.get(slot.as_str()), expected, "{agent} {slot}");
            }
        }
    }
}

pub(crate) fn placed(plan: &Plan) -> Vec<u128> {
    plan.placements.iter().map(|placement| placement.session.0.as_u128()).collect()
}

pub(crate) fn placed_set(plan: &Plan) -> BTreeSet<u128> {
    placed(plan).into_iter().collect()
}

/// The agents of the first placement.
pub(crate) fn agents(plan: &Plan, at: usize) -> Vec<&str> {
    plan.placements[at].agents.iter().map(AgentId::as_str).collect()
}

pub(crate) fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed | 1;
    for at in (1..items.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let range = u64::try_from(at + 1).unwrap();
        items.swap(at, usize::try_from((state >> 33) % range).unwrap());
    }
}

pub(crate) fn amount(slots: &ResourceSlots, slot: &str) -> u64 {
    match slots.get(slot) {
        Amount::Infinity => u64::MAX,
        finite @ Amount::Finite(_) => finite.to_u64().unwrap(),
    }
}
