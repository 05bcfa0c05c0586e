//! Keeping the group by deltas.

use std::sync::Arc;

use bai_core::{AgentId, Result, SessionId};
use smallvec::SmallVec;

use super::{Group, capacity_rules, half_life};
use crate::model::{Delta, DependencyState, Designation, Outcome, Running, Session, SessionGroupId};
use crate::options::Options;
use crate::queue::{Entry, Extras, Held, Part, SessionNo, State};
use crate::request::Request;
use crate::room::{NEVER, Run};
use crate::sequence::Waiting;
use crate::slots::{Amounts, SlotId};

impl Group {
    /// Takes note of a change.
    ///
    /// # Errors
    /// `Invalid` when an amount is negative; the change is then not made.
    pub fn apply(&mut self, delta: Delta) -> Result<()> {
        self.fleet.tidy();
        match delta {
            Delta::Agent(agent) => return self.fleet.put(&agent, &mut self.table),
            Delta::AgentSchedulable(id, schedulable) => self.fleet.set_schedulable(&id, schedulable),
            Delta::AgentLeft(id) => self.fleet.leave(&id),
            Delta::Enqueued(session) => return self.enqueue(&session),
            Delta::Prioritised(session, priority) => self.prioritise(session, priority),
            Delta::Claimed(session, claim) => self.recall(session, &claim),
            Delta::GivenUp(given_up) => self.wait_without(&given_up),
            Delta::Holds(running) => return self.hold(&running),
            Delta::Started { session, at, ends_at } => {
                let ends = ends_at.map_or(NEVER, |end| end.timestamp_micros());
                self.start(session, at.timestamp_micros(), ends);
            }
            Delta::KernelEnded(session, kernel) => self.end_kernel(session, kernel),
            Delta::Leaving(session) => self.leaving(session),
            Delta::Ended(session, outcome) => self.end(session, outcome),
            Delta::Requeued(session, failed) => self.requeue(session, failed),
            Delta::Limits(holder, limits) => {
                let lanes = self.accounts.set_limits(&holder, *limits, &mut self.table)?;
                self.queue.unpark(lanes);
            }
            Delta::UsedElsewhere(holder, slots, sessions) => {
                let lanes = self.accounts.set_elsewhere(&holder, &slots, sessions, &mut self.table)?;
                self.queue.unpark(lanes);
            }
            Delta::History(holder, slices) => {
                return self.accounts.set_history(&holder, &slices, &mut self.table);
            }
            Delta::Weight(holder, weight) => self.accounts.set_weight(&holder, weight),
            Delta::Dependency(parent, outcome) => self.resolve(parent, outcome),
            Delta::LastUsed(architecture, agent) => self.fleet.set_last_used(&architecture, agent),
            Delta::Options(options) => return self.configure(*options),
        }
        Ok(())
    }

    fn enqueue(&mut self, session: &Session) -> Result<()> {
        if self.queue.find(session.id).is_some() {
            return Ok(());
        }
        let number = self.insert(session, State::Early)?;
        let Some(entry) = self.queue.get(number) else { return Ok(()) };
        let (owner, request) = (entry.owner, entry.request);
        self.count_pending(owner, request, true);
        for dependency in &session.dependencies {
            if dependency.state == DependencyState::Waiting {
                self.queue.children.entry(dependency.id).or_default().push(number);
            }
        }
        self.queue.fresh.push(number);
        self.route(number);
        if let Some(claim) = &session.claim {
            self.recall(session.id, claim);
        }
        Ok(())
    }

    fn insert(&mut self, session: &Session, state: State) -> Result<SessionNo> {
        let request = self.requests.intern(session, &mut self.table, &self.options.slot_order)?;
        let entry = Entry {
            id: session.id,
            created_at: session.created_at.timestamp_micros(),
            owner: self.accounts.intern(&session.owner),
            request,
            priority: session.priority,
            job_priority: session.job_priority,
            preemptible: session.preemptible && !session.private,
            told: false,
            state,
            extras: extras(session),
        };
        Ok(self.queue.insert(entry))
    }

    pub(super) fn count_pending(&mut self, owner: u32, request: u32, more: bool) {
        if let Some(total) = self.requests.get(request).map(|request| request.total.clone()) {
            self.accounts.count_pending(owner, &total, more, self.table.width());
        }
    }

    /// Puts a waiting session where it belongs: a lane, or those who wait for a time or for others.
    pub(super) fn route(&mut self, number: SessionNo) {
        let Some(entry) = self.queue.get(number) else { return };
        let any = |state: DependencyState| {
            let dependencies = entry.extras.as_ref().map_or(&[][..], |extras| &extras.dependencies);
            dependencies.iter().any(|dependency| dependency.state == state)
        };
        let starts_at = entry.extras.as_ref().and_then(|extras| extras.starts_at);
        let early = starts_at.filter(|start| *start > self.now);
        let id = entry.id;
        let state = if any(DependencyState::Failed) {
            self.queue.doomed.insert(id);
            State::Doomed
        } else if any(DependencyState::Waiting) {
            State::Dependent
        } else if let Some(start) = early {
            self.queue.early.insert((start, number));
            State::Early
        } else {
            let position = self.position(number);
            return self.queue.enqueue(number, position);
        };
        if let Some(entry) = self.queue.get_mut(number) {
            entry.state = state;
        }
    }

    pub(super) fn position(&self, number: SessionNo) -> i64 {
        let Some(entry) = self.queue.get(number) else { return 0 };
        let kernels = self.requests.get(entry.request).map_or(0, |request| request.kernels.len());
        self.options.sequencer.position(&Waiting {
            id: entry.id,
            created_at: Self::time(entry.created_at),
            kernels: u32::try_from(kernels).unwrap_or(u32::MAX),
        })
    }

    /// Takes a waiting session from where it waits.
    fn unroute(&mut self, number: SessionNo) {
        let Some(entry) = self.queue.get(number) else { return };
        let id = entry.id;
        match entry.state {
            State::Queued(lane) => {
                self.queue.unseat(lane, (self.position(number), id, number));
                self.queue.tidy(lane);
            }
            State::Early => {
                if let Some(start) = entry.extras.as_ref().and_then(|extras| extras.starts_at) {
                    self.queue.early.remove(&(start, number));
                }
            }
            State::Dependent | State::Doomed => {
                self.queue.doomed.remove(&id);
            }
            State::Held(_) | State::Claimed(_) => {}
        }
    }

    fn prioritise(&mut self, session: SessionId, priority: i32) {
        let Some(number) = self.queue.find(session) else { return };
        let queued = matches!(self.queue.get(number), Some(entry) if matches!(entry.state, State::Queued(_)));
        if queued {
            self.unroute(number);
        }
        if let Some(entry) = self.queue.get_mut(number) {
            entry.priority = priority;
        }
        if queued {
            self.route(number);
        }
    }

    fn hold(&mut self, running: &Running) -> Result<()> {
        if running.agents.iter().all(Option::is_none) {
            return Ok(()); // it holds nothing, and waits for nothing but its end
        }
        let id = running.session.id;
        let number = match self.queue.find(id) {
            Some(number) => match self.queue.get(number).map(|entry| &entry.state) {
                Some(State::Held(_)) | None => return Ok(()),
                Some(State::Claimed(_)) => {
                    self.release_claim(number);
                    number
                }
                Some(_) => {
                    self.leave_queue(number);
                    number
                }
            },
            None => self.insert(&running.session, State::Early)?,
        };
        let Some(parts) = self.parts_of(number, &running.agents) else { return Ok(()) };
        let ends = running.ends_at.map_or(NEVER, |end| end.timestamp_micros());
        for part in &parts {
            self.take(number, part, ends);
        }
        self.settle_in(number, parts, running.since.timestamp_micros(), ends);
        for (kernel, agent) in running.agents.iter().enumerate() {
            if agent.is_none() {
                self.end_kernel(id, kernel);
            }
        }
        if running.leaving {
            self.leaving(id);
        }
        Ok(())
    }

    /// What a session holds whose kernels are on `agents`; `None` when it holds nothing.
    pub(super) fn parts_of(
        &mut self,
        number: SessionNo,
        agents: &[Option<AgentId>],
    ) -> Option<SmallVec<[Part; 1]>> {
        self.fleet.room.widen(self.table.width());
        let request = self.requests.get(self.queue.get(number)?.request)?;
        let need = request.needs.first()?;
        let first = agents.iter().flatten().next()?;
        if need.together {
            let amount = need.amounts.clone();
            return Some(SmallVec::from_iter([Part { agent: self.fleet.number(first), amount }]));
        }
        // A kernel that has ended is where any other one is until its part is given back.
        let on = agents.iter().map(|agent| agent.as_ref().unwrap_or(first));
        let parts = on.zip(&request.kernels);
        Some(
            parts
                .map(|(agent, amount)| Part { agent: self.fleet.number(agent), amount: amount.clone() })
                .collect(),
        )
    }

    pub(super) fn take(&mut self, session: SessionNo, part: &Part, ends: i64) {
        self.fleet.room.take(part.agent, Run { ends, session, amount: part.amount.clone() });
    }

    /// A waiting session leaves the queue, but not yet the group.
    pub(super) fn leave_queue(&mut self, number: SessionNo) {
        self.unroute(number);
        if let Some(entry) = self.queue.get(number) {
            let (owner, request) = (entry.owner, entry.request);
            self.count_pending(owner, request, false);
        }
    }

    /// A session whose parts are taken becomes one that holds them.
    pub(super) fn settle_in(&mut self, number: SessionNo, parts: SmallVec<[Part; 1]>, since: i64, ends: i64) {
        let Some(entry) = self.queue.get(number) else { return };
        let Some(request) = self.requests.get(entry.request) else { return };
        let (total, private, owner) = (request.total.clone(), request.private(), entry.owner);
        if let Some(group) = entry.extras.as_ref().and_then(|extras| extras.group) {
            self.count_member(group.id, &parts, true);
        }
        self.accounts.charge(owner, &total, private, self.table.width());
        self.accounts.count_session(owner, private, true);
        let held = Held { since, ends, parts, ended: Vec::new(), charged: total, counted: true };
        if let Some(entry) = self.queue.get_mut(number) {
            if let Some(extras) = &mut entry.extras {
                extras.no_preemption_before = None;
            }
            entry.state = State::Held(Box::new(held));
        }
    }

    fn count_member(&mut self, group: SessionGroupId, parts: &[Part], more: bool) {
        let mut agents: Vec<_> = parts.iter().map(|part| part.agent).collect();
        agents.sort_unstable();
        agents.dedup();
        let members = self.members.entry(group).or_default();
        for agent in agents {
            let count = members.entry(agent).or_default();
            *count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
            if *count == 0 {
                members.remove(&agent);
            }
        }
        if members.is_empty() {
            self.members.remove(&group);
        }
    }

    fn start(&mut self, session: SessionId, at: i64, ends: i64) {
        let Some(number) = self.queue.find(session) else { return };
        let Some(State::Held(held)) = self.queue.get_mut(number).map(|entry| &mut entry.state) else {
            return;
        };
        held.since = at;
        held.ends = ends;
        let parts: Vec<_> = held.parts.iter().filter(|part| !part.amount.is_zero()).cloned().collect();
        for part in parts {
            self.fleet.room.set_end(part.agent, number, ends);
        }
    }

    fn end_kernel(&mut self, session: SessionId, kernel: usize) {
        let Some(number) = self.queue.find(session) else { return };
        let Some(entry) = self.queue.get_mut(number) else { return };
        let Some(request) = self.requests.get(entry.request) else { return };
        let Some(amount) = request.kernels.get(kernel).cloned() else { return };
        let (together, private, owner) =
            (request.needs.first().is_some_and(|need| need.together), request.private(), entry.owner);
        let State::Held(held) = &mut entry.state else { return };
        if held.ended.contains(&kernel) {
            return;
        }
        held.ended.push(kernel);
        let counted = amount.without(SlotId::KERNELS);
        let counts = held.counted;
        if counts {
            let mut charged = (*held.charged).clone();
            charged.take_all(&counted);
            held.charged = Arc::new(charged);
        }
        let ends = held.ends;
        let Some(part) = held.parts.get_mut(if together { 0 } else { kernel }) else { return };
        let (agent, old) = (part.agent, part.amount.clone());
        let mut rest = (*old).clone();
        rest.take_all(&amount);
        part.amount = Arc::new(rest);
        let rest = part.amount.clone();
        self.fleet.room.give_back(agent, number, &old);
        if !rest.is_zero() {
            self.fleet.room.take(agent, Run { ends, session: number, amount: rest });
        }
        if counts {
            let lanes = self.accounts.discharge(owner, &counted, private);
            self.queue.unpark(lanes);
        }
    }

    /// A session that is being ended counts no more.
    fn leaving(&mut self, session: SessionId) {
        let Some(number) = self.queue.find(session) else { return };
        let Some(entry) = self.queue.get_mut(number) else { return };
        let (owner, request) = (entry.owner, entry.request);
        let State::Held(held) = &mut entry.state else { return };
        if std::mem::replace(&mut held.counted, false) {
            let charged = std::mem::take(&mut held.charged);
            self.uncount(owner, request, &charged);
        }
    }

    fn uncount(&mut self, owner: u32, request: u32, charged: &Amounts) {
        let private = self.requests.get(request).is_some_and(Request::private);
        self.accounts.count_session(owner, private, false);
        let lanes = self.accounts.discharge(owner, charged, private);
        self.queue.unpark(lanes);
    }

    /// A session has ended or was cancelled: what depends on it learns of it.
    fn end(&mut self, session: SessionId, outcome: Outcome) {
        if let Some(number) = self.queue.find(session) {
            self.let_go(number);
            if let Some(entry) = self.queue.remove(number) {
                self.requests.release(entry.request);
                self.forget_child(&entry, number);
            }
        }
        self.resolve(session, outcome);
    }

    fn forget_child(&mut self, entry: &Entry, number: SessionNo) {
        for dependency in entry.extras.iter().flat_map(|extras| &extras.dependencies) {
            if let Some(children) = self.queue.children.get_mut(&dependency.id) {
                children.retain(|child| *child != number);
                if children.is_empty() {
                    self.queue.children.remove(&dependency.id);
                }
            }
        }
    }

    /// Frees whatever a session holds: its agents, its claim or its place in the queue.
    fn let_go(&mut self, number: SessionNo) {
        let Some(entry) = self.queue.get(number) else { return };
        match &entry.state {
            State::Held(_) => self.release(number),
            State::Claimed(_) => {
                self.release_claim(number);
            }
            _ => self.leave_queue(number),
        }
    }

    fn release(&mut self, number: SessionNo) {
        let Some(entry) = self.queue.get_mut(number) else { return };
        let State::Held(held) = std::mem::replace(&mut entry.state, State::Early) else { return };
        let (owner, group) = (entry.owner, entry.extras.as_ref().and_then(|extras| extras.group));
        let request = entry.request;
        for part in held.parts.iter().filter(|part| !part.amount.is_zero()) {
            self.fleet.room.give_back(part.agent, number, &part.amount);
        }
        if let Some(group) = group {
            self.count_member(group.id, &held.parts, false);
        }
        if held.counted {
            self.uncount(owner, request, &held.charged);
        }
    }

    fn requeue(&mut self, session: SessionId, failed: Vec<AgentId>) {
        let Some(number) = self.queue.find(session) else { return };
        let Some(entry) = self.queue.get_mut(number) else { return };
        if !matches!(entry.state, State::Held(_) | State::Claimed(_)) {
            return;
        }
        entry.told = false;
        if !failed.is_empty() {
            let extras = entry.extras.get_or_insert_default();
            extras.avoid.extend(failed);
            extras.avoid.sort();
            extras.avoid.dedup();
        }
        let (owner, request) = (entry.owner, entry.request);
        self.let_go(number);
        self.count_pending(owner, request, true);
        self.queue.fresh.push(number);
        self.route(number);
    }

    /// Tells those who wait for a session how it has ended.
    fn resolve(&mut self, parent: SessionId, outcome: Outcome) {
        for child in self.queue.children.remove(&parent).unwrap_or_default() {
            let Some(entry) = self.queue.get_mut(child) else { continue };
            let Some(extras) = entry.extras.as_mut() else { continue };
            for dependency in extras.dependencies.iter_mut().filter(|dependency| dependency.id == parent) {
                dependency.state = match outcome {
                    Outcome::Succeeded => DependencyState::Succeeded,
                    Outcome::Failed => DependencyState::Failed,
                };
            }
            if matches!(entry.state, State::Dependent) {
                entry.told = false;
                self.queue.fresh.push(child);
                self.route(child);
            }
        }
    }

    fn configure(&mut self, options: Options) -> Result<()> {
        self.fleet.configure(options.selector.clone(), capacity_rules(&options), &mut self.table)?;
        self.accounts.set_half_life(half_life(&options));
        let queued: Vec<SessionNo> = self
            .queue
            .iter()
            .filter_map(|(number, entry)| matches!(entry.state, State::Queued(_)).then_some(number))
            .collect();
        for number in &queued {
            self.unroute(*number);
        }
        self.options = options;
        self.requests.rebuild(&self.table, &self.options.slot_order);
        for number in queued {
            self.route(number);
        }
        let lanes: Vec<_> = self.queue.lanes().map(|(number, _)| number).collect();
        self.queue.unpark(lanes);
        Ok(())
    }
}

/// What few sessions have; `None` for most.
fn extras(session: &Session) -> Option<Box<Extras>> {
    let preferred = match session.designation {
        Designation::Preferred => session.designated.clone(),
        Designation::Strict => Vec::new(),
    };
    let extras = Extras {
        starts_at: session.starts_at.map(|start| start.timestamp_micros()),
        dependencies: session.dependencies.clone(),
        preferred,
        avoid: session.avoid.clone(),
        group: session.group,
        no_preemption_before: session.no_preemption_before.map(|again| again.timestamp_micros()),
    };
    let plain = extras.starts_at.is_none()
        && extras.dependencies.is_empty()
        && extras.preferred.is_empty()
        && extras.avoid.is_empty()
        && extras.group.is_none()
        && extras.no_preemption_before.is_none();
    (!plain).then(|| Box::new(extras))
}
