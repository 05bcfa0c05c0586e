//! What the records say and what really runs: checks every commit, and every command to an agent, against what must hold at all
//! times.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bai_core::port::agent::KernelRef;
use bai_core::slots::ResourceSlots;
use bai_core::{AgentId, Kernel, Session, SessionId, SessionStatus};
use parking_lot::Mutex;

use super::Trace;

/// Reasons for which nothing happens to a session while nothing goes wrong.
const HARM: [&str; 6] = [
    "agent-lost",
    "container-not-found",
    "failed-to-start",
    "not-found-in-manager",
    "restart-timeout",
    "self-terminated",
];

/// What the records say, and whether they may.
#[derive(Debug)]
pub struct Ledger {
    trace: Trace,
    capacity: BTreeMap<AgentId, ResourceSlots>,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    sessions: BTreeMap<SessionId, Arc<Session>>,
    /// Which start of which kernel was seen where: never on two agents.
    seen: BTreeMap<KernelRef, AgentId>,
    /// Those that run.
    running: BTreeSet<KernelRef>,
    /// Whether nothing goes wrong any more.
    peace: bool,
    held: BTreeMap<AgentId, BTreeMap<SessionId, ResourceSlots>>,
}

impl Ledger {
    /// A ledger for agents of these capacities.
    pub fn new(trace: Trace, capacity: BTreeMap<AgentId, ResourceSlots>) -> Arc<Self> {
        Arc::new(Self { trace, capacity, books: Mutex::default() })
    }

    /// From now on nothing goes wrong: no session may come to harm.
    pub fn expect_peace(&self) {
        self.books.lock().peace = true;
    }

    /// An agent accepts a kernel.
    pub(super) fn accepted(&self, kernel: KernelRef, agent: &AgentId) {
        let mut books = self.books.lock();
        let first = books.seen.entry(kernel).or_insert_with(|| agent.clone());
        if first != agent {
            self.trace.blame(format_args!("{} is created on {agent} and on {first}", describe(kernel)));
        }
    }

    /// A kernel runs, or no longer does.
    pub(super) fn runs(&self, kernel: KernelRef, runs: bool) {
        let running = &mut self.books.lock().running;
        if runs {
            running.insert(kernel)
        } else {
            running.remove(&kernel)
        };
    }

    /// An agent is about to end a kernel because a manager wants it to: then no record may want it any more.
    pub(super) fn ends(&self, kernel: KernelRef, session: SessionId, agent: &AgentId, reason: &str) {
        let books = self.books.lock();
        let Some(session) = books.sessions.get(&session) else { return };
        let wanted = session.status.is_starting() || session.status.is_running();
        let current = session.kernel(kernel.id).filter(|known| {
            known.generation == kernel.generation
                && known.agent.as_ref() == Some(agent)
                && !known.status.is_dead()
        });
        if wanted && current.is_some() {
            self.trace.blame(format_args!(
                "{} of {} is ended on {agent} ({reason}) although the record wants it",
                describe(kernel),
                session.name
            ));
        }
    }

    /// A session has been stored as it is here.
    pub(super) fn enter(&self, manager: &str, session: &Session) {
        let books = &mut *self.books.lock();
        let before = books.sessions.insert(session.id, Arc::new(session.clone()));
        self.tell(manager, before.as_deref(), session);
        self.check_moves(before.as_deref(), session);
        if books.peace {
            self.check_peace(before.as_deref(), session);
        }
        for kernel in &session.kernels {
            let before = before.as_ref().and_then(|before| before.kernel(kernel.id));
            self.check_kernel(before, kernel, session.status);
            if before.is_none_or(|before| !before.status.is_dead()) {
                self.check_death(kernel, &books.running);
            }
        }
        for agent in before.iter().flat_map(|before| agents_of(before)) {
            if let Some(holders) = books.held.get_mut(agent) {
                holders.remove(&session.id);
            }
        }
        for agent in agents_of(session) {
            let here = session.kernels.iter().filter(|kernel| kernel.agent.as_ref() == Some(agent));
            let held = here.map(|kernel| &kernel.allocated).sum();
            books.held.entry(agent.clone()).or_default().insert(session.id, held);
            self.check_room(agent, &books.held[agent]);
        }
    }

    fn tell(&self, manager: &str, before: Option<&Session>, after: &Session) {
        let status = match before {
            Some(before) if before.status != after.status => format!("{} -> {}", before.status, after.status),
            _ => after.status.to_string(),
        };
        let info = after.status_info.as_deref().unwrap_or_default();
        let kernels = after.kernels.iter().map(|kernel| {
            let agent = kernel.agent.as_ref().map_or("-", AgentId::as_str);
            format!(" {agent}#{}={}", kernel.generation, kernel.status)
        });
        let kernels: String = kernels.collect();
        self.trace.say(format_args!(
            "commit {manager} {} of {} v{} {status} ({info}){kernels}",
            after.name, after.owner.access_key, after.version
        ));
    }

    fn check_moves(&self, before: Option<&Session>, after: &Session) {
        let Some(before) = before else { return };
        let moved = before.status != after.status;
        if before.status.is_dead() {
            self.trace.blame(format_args!("{} is changed after its death", after.name));
        } else if moved && !before.status.can_become(after.status) && !is_placed(before, after) {
            self.trace.blame(format_args!("{} goes from {} to {}", after.name, before.status, after.status));
        }
        if after.version != before.version + 1 {
            self.trace.blame(format_args!("{} v{} follows v{}", after.name, after.version, before.version));
        }
    }

    /// Nothing but the wish of its owner, or its own end, changes the course of a session.
    fn check_peace(&self, before: Option<&Session>, after: &Session) {
        let moved = before.is_some_and(|before| before.status != after.status);
        let harm = after.status_info.as_deref().filter(|reason| HARM.contains(reason));
        if let Some(reason) = harm.filter(|_| moved) {
            self.trace.blame(format_args!("{} enters {} in peace: {reason}", after.name, after.status));
        }
    }

    fn check_kernel(&self, before: Option<&Kernel>, after: &Kernel, session: SessionStatus) {
        let holds = after.status.holds_capacity();
        let expected = if holds { after.requested.clone() } else { ResourceSlots::default() };
        let id = after.id;
        if after.allocated != expected {
            self.trace.blame(format_args!("{id} in {} holds {}", after.status, after.allocated));
        }
        if holds && after.agent.is_none() {
            self.trace.blame(format_args!("{id} in {} has no agent", after.status));
        }
        let Some(before) = before else { return };
        // What has not started as a whole is taken back as a whole: kernels that already ran included, and those that have ended if
        // all are to start anew.
        let taken_back = match session {
            SessionStatus::Pending => true,
            SessionStatus::Cancelled => !before.status.is_dead(),
            _ => false,
        };
        let allowed = taken_back || before.status.can_become(after.status);
        if before.status != after.status && !allowed {
            self.trace.blame(format_args!("kernel {id} goes from {} to {}", before.status, after.status));
        }
        let placed = after.agent.is_some() && before.agent != after.agent;
        if after.generation < before.generation || (placed && after.generation == before.generation) {
            self.trace.blame(format_args!(
                "kernel {id} of generation {} on {:?} becomes {} on {:?}",
                before.generation, before.agent, after.generation, after.agent
            ));
        }
    }

    /// Nobody may believe that a kernel is gone which runs.
    fn check_death(&self, kernel: &Kernel, running: &BTreeSet<KernelRef>) {
        let reference = KernelRef { id: kernel.id, generation: kernel.generation };
        let gone = ["container-not-found", "self-terminated"];
        let is_said_gone = kernel.status_info.as_deref().is_some_and(|reason| gone.contains(&reason));
        if kernel.status.is_dead() && is_said_gone && running.contains(&reference) {
            self.trace.blame(format_args!(
                "{} is recorded as {:?} and runs on {:?}",
                describe(reference),
                kernel.status_info,
                kernel.agent
            ));
        }
    }

    fn check_room(&self, agent: &AgentId, held: &BTreeMap<SessionId, ResourceSlots>) {
        let held: ResourceSlots = held.values().sum();
        let Some(capacity) = self.capacity.get(agent) else {
            self.trace.blame(format_args!("{held} is held on {agent}, which does not exist"));
            return;
        };
        if !held.fits_in(capacity) {
            self.trace.blame(format_args!("{held} is held on {agent} of {capacity}"));
        }
    }

    /// The newest version of all sessions, dead ones included.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        self.books.lock().sessions.values().cloned().collect()
    }

    /// What is free on each agent by the records.
    pub fn free(&self) -> BTreeMap<AgentId, ResourceSlots> {
        let books = self.books.lock();
        let free = self.capacity.iter().map(|(agent, capacity)| {
            let held: ResourceSlots = books.held.get(agent).into_iter().flat_map(BTreeMap::values).sum();
            (agent.clone(), capacity.remaining(&held))
        });
        free.collect()
    }
}

/// Names a start of a kernel.
pub(super) fn describe(kernel: KernelRef) -> String {
    format!("{}#{}", kernel.id, kernel.generation)
}

/// Whether the commit places the session, and moves it on from there at once.
fn is_placed(before: &Session, after: &Session) -> bool {
    after.main().generation > before.main().generation
        && before.status.can_become(SessionStatus::Scheduled)
        && SessionStatus::Scheduled.can_become(after.status)
}

fn agents_of(session: &Session) -> Vec<&AgentId> {
    let mut agents: Vec<_> = session.kernels.iter().filter_map(|kernel| kernel.agent.as_ref()).collect();
    agents.sort_unstable();
    agents.dedup();
    agents
}

#[cfg(test)]
mod tests {
    use bai_core::KernelStatus;

    use super::*;
    use crate::fixture;
    use crate::simulation::VirtualClock;

    /// A ledger of one agent with two cores, and its story.
    fn ledger() -> (Arc<Ledger>, Trace) {
        let trace = Trace::start(VirtualClock::start());
        let capacity = [(AgentId::new("i-1"), fixture::slots(2, 1 << 30))].into();
        (Ledger::new(trace.clone(), capacity), trace)
    }

    /// A session of one core that has been stored, and another time after it was placed on the agent.
    fn placed(ledger: &Ledger, name: &str) -> Session {
        let mut session = fixture::session(name);
        session.version = 1;
        ledger.enter("m1", &session);
        session.place(&["i-1".into()], fixture::at(1)).unwrap();
        session.version = 2;
        ledger.enter("m1", &session);
        session
    }

    fn reference(session: &Session) -> KernelRef {
        KernelRef { id: session.main().id, generation: session.main().generation }
    }

    fn assert_blamed(trace: &Trace, what: &str) {
        let violations = trace.violations();
        assert!(violations.len() == 1 && violations[0].contains(what), "{violations:?}");
    }

    #[test]
    fn what_agents_have_room_for_is_fine_and_more_is_not() {
        let (ledger, trace) = ledger();
        placed(&ledger, "one");
        placed(&ledger, "two");
        assert_eq!(trace.violations(), Vec::<String>::new());
        placed(&ledger, "three");
        assert_blamed(&trace, "is held on i-1");
    }

    #[test]
    fn a_start_is_accepted_by_one_agent_as_often_as_it_likes() {
        let (ledger, trace) = ledger();
        let kernel = reference(&placed(&ledger, "one"));
        ledger.accepted(kernel, &"i-1".into());
        ledger.accepted(kernel, &"i-1".into());
        assert_eq!(trace.violations(), Vec::<String>::new());
        ledger.accepted(kernel, &"i-2".into());
        assert_blamed(&trace, "is created on i-2 and on i-1");
    }

    #[test]
    fn a_kernel_is_ended_only_if_its_record_does_not_want_it() {
        let (ledger, trace) = ledger();
        let session = placed(&ledger, "one");
        let earlier = KernelRef { generation: 0, ..reference(&session) };
        ledger.ends(earlier, session.id, &"i-1".into(), "restarting");
        ledger.ends(reference(&session), session.id, &"i-2".into(), "elsewhere");
        assert_eq!(trace.violations(), Vec::<String>::new());
        ledger.ends(reference(&session), session.id, &"i-1".into(), "by mistake");
        assert_blamed(&trace, "although the record wants it");
    }

    #[test]
    fn what_runs_is_not_recorded_as_gone() {
        let (ledger, trace) = ledger();
        let mut session = placed(&ledger, "one");
        let kernel = reference(&session);
        session.advance_kernel(kernel.id, KernelStatus::Running, "", fixture::at(2)).unwrap();
        session.version = 3;
        ledger.enter("m1", &session);
        ledger.runs(kernel, true);
        let exit =
            bai_core::session::KernelExit { code: None, reason: "container-not-found".into(), oom: false };
        session.kernel_ended(kernel.id, &exit, fixture::at(3)).unwrap();
        session.version = 4;
        ledger.enter("m1", &session);
        assert_blamed(&trace, "and runs on");
    }

    #[test]
    fn statuses_follow_the_state_machine_and_versions_each_other() {
        let (ledger, trace) = ledger();
        let mut session = placed(&ledger, "one");
        session.status = SessionStatus::Running;
        session.version = 3;
        ledger.enter("m1", &session);
        assert_blamed(&trace, "goes from SCHEDULED to RUNNING");
    }
}
