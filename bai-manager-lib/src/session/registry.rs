//! The living sessions in memory. Each sits in a watch channel, so that waiting for a change costs nothing while nothing
//! happens.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bai_core::port::agent::KernelRef;
use bai_core::{
    AccessKey, AgentId, Kernel, KernelId, ResourceSlots, Result, Session, SessionId, SessionStatus,
};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::admission::{Pending, PendingLimits};

/// Living sessions by id, name and kernel.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<SessionId, watch::Sender<Arc<Session>>>,
    names: HashMap<(AccessKey, String), SessionId>,
    kernels: HashMap<KernelId, SessionId>,
    /// What is on each agent that has something.
    placed: HashMap<AgentId, Placed>,
    /// Sessions that have died lately: an old read must not bring them back.
    graves: Graves,
    /// Pending sessions of each resource group that has some.
    queued: HashMap<String, HashSet<SessionId>>,
    /// How many sessions each resource group has that has some.
    members: BTreeMap<String, usize>,
    /// What waits of each keypair.
    pending: Pending,
}

/// Sessions with a kernel on an agent.
#[derive(Debug, Default)]
struct Placed {
    sessions: HashSet<SessionId>,
    /// How many kernels of theirs are there, dead ones included.
    kernels: usize,
}

/// A session that is about to be enqueued.
#[derive(Debug)]
pub(crate) struct Admitted<'a> {
    registry: &'a Registry,
    session: SessionId,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.registry.state.write().pending.arrived(self.session);
    }
}

/// What [`Registry::put`] replaced.
#[derive(Debug)]
pub(crate) enum Replaced {
    /// The session is new here.
    Nothing,
    /// An older version.
    Older(Arc<Session>),
    /// This version or a newer one was already there; nothing has changed.
    Stale,
}

impl Registry {
    pub(crate) fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        self.state.read().sessions.get(&id).map(|entry| entry.borrow().clone())
    }

    pub(crate) fn by_name(&self, access_key: &AccessKey, name: &str) -> Option<Arc<Session>> {
        let state = self.state.read();
        let id = state.names.get(&(access_key.clone(), name.to_owned()))?;
        state.sessions.get(id).map(|entry| entry.borrow().clone())
    }

    pub(crate) fn by_kernel(&self, kernel: KernelId) -> Option<Arc<Session>> {
        let state = self.state.read();
        let id = state.kernels.get(&kernel)?;
        state.sessions.get(id).map(|entry| entry.borrow().clone())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.state.read().sessions.values().map(|entry| entry.borrow().clone()).collect()
    }

    /// Versions of all.
    pub(crate) fn versions(&self) -> HashMap<SessionId, i64> {
        let state = self.state.read();
        state.sessions.iter().map(|(id, entry)| (*id, entry.borrow().version)).collect()
    }

    /// Follows a living session; its last value is the dead one.
    pub(crate) fn watch(&self, id: SessionId) -> Option<watch::Receiver<Arc<Session>>> {
        self.state.read().sessions.get(&id).map(watch::Sender::subscribe)
    }

    /// Takes a newer version of a session; a dead one is told to its watchers and dropped.
    pub(crate) fn put(&self, session: Arc<Session>) -> Replaced {
        let state = &mut *self.state.write();
        let old = state.sessions.get(&session.id).map(|entry| entry.borrow().clone());
        if old.as_ref().is_some_and(|old| old.version >= session.version)
            || state.graves.ids.contains(&session.id)
        {
            return Replaced::Stale;
        }
        match &old {
            Some(old) if same_indexes(old, &session) => {
                state.follow(session);
                return Replaced::Older(old.clone());
            }
            Some(old) => state.drop_indexes(old),
            None => state.pending.arrived(session.id),
        }
        if session.status.is_dead() {
            state.remove(session);
        } else {
            state.keep(session);
        }
        old.map_or(Replaced::Nothing, Replaced::Older)
    }

    /// Counts a session that is about to be enqueued among those that wait, until it has been [put](Registry::put) or what is
    /// returned is dropped.
    ///
    /// # Errors
    /// `QuotaExceeded` over a limit.
    pub(crate) fn admit(&self, session: &Session, limits: &PendingLimits) -> Result<Admitted<'_>> {
        self.state.write().pending.admit(session, limits)?;
        Ok(Admitted { registry: self, session: session.id })
    }

    /// Resource groups with pending sessions.
    pub(crate) fn queued_groups(&self) -> Vec<String> {
        self.state.read().queued.keys().cloned().collect()
    }

    /// Resource groups with living sessions.
    pub(crate) fn groups(&self) -> Vec<String> {
        self.state.read().members.keys().cloned().collect()
    }

    /// Living sessions of a resource group.
    pub(crate) fn of_group(&self, group: &str) -> Vec<Arc<Session>> {
        self.all().into_iter().filter(|session| session.resource_group == group).collect()
    }

    /// How many kernels of living sessions the agent has, or had.
    pub(crate) fn count_on(&self, agent: &AgentId) -> usize {
        self.state.read().placed.get(agent).map_or(0, |placed| placed.kernels)
    }

    /// The living kernels of sessions on the agent that `wanted` picks.
    pub(crate) fn on_agent(&self, agent: &AgentId, wanted: impl Fn(KernelRef) -> bool) -> Vec<KernelRef> {
        let state = self.state.read();
        let ids = state.placed.get(agent).into_iter().flat_map(|placed| &placed.sessions);
        let mut found = Vec::new();
        for session in ids.filter_map(|id| state.sessions.get(id)).map(watch::Sender::borrow) {
            let here = |kernel: &&Kernel| kernel.agent.as_ref() == Some(agent) && !kernel.status.is_dead();
            found
                .extend(session.kernels.iter().filter(here).map(kernel_ref).filter(|kernel| wanted(*kernel)));
        }
        found
    }

    /// What living kernels hold on each agent.
    pub(crate) fn held(&self) -> HashMap<AgentId, ResourceSlots> {
        let mut held = HashMap::<AgentId, ResourceSlots>::new();
        for entry in self.state.read().sessions.values() {
            for kernel in &entry.borrow().kernels {
                if let Some(agent) = kernel.agent.as_ref().filter(|_| !kernel.allocated.is_empty()) {
                    held.entry(agent.clone()).or_default().add(&kernel.allocated);
                }
            }
        }
        held
    }
}

impl State {
    fn keep(&mut self, session: Arc<Session>) {
        *self.members.entry(session.resource_group.clone()).or_default() += 1;
        if session.status == SessionStatus::Pending {
            self.queued.entry(session.resource_group.clone()).or_default().insert(session.id);
            self.pending.count(&session);
        }
        self.names.insert(name_key(&session), session.id);
        for kernel in &session.kernels {
            self.kernels.insert(kernel.id, session.id);
        }
        for agent in session.kernels.iter().filter_map(|kernel| kernel.agent.as_ref()) {
            let placed = self.placed.entry(agent.clone()).or_default();
            placed.sessions.insert(session.id);
            placed.kernels += 1;
        }
        self.follow(session);
    }

    /// Takes the session itself, as far as it is not in an index.
    fn follow(&mut self, session: Arc<Session>) {
        match self.sessions.get(&session.id) {
            Some(entry) => _ = entry.send_replace(session),
            None => _ = self.sessions.insert(session.id, watch::Sender::new(session)),
        }
    }

    fn remove(&mut self, session: Arc<Session>) {
        self.graves.dig(session.id);
        for kernel in &session.kernels {
            self.kernels.remove(&kernel.id);
        }
        if let Some(entry) = self.sessions.remove(&session.id) {
            entry.send_replace(session);
        }
    }

    fn drop_indexes(&mut self, session: &Session) {
        if let Some(count) = self.members.get_mut(&session.resource_group) {
            *count -= 1;
            if *count == 0 {
                self.members.remove(&session.resource_group);
            }
        }
        if session.status == SessionStatus::Pending {
            self.pending.discount(session);
        }
        if let Some(queue) = self.queued.get_mut(&session.resource_group) {
            queue.remove(&session.id);
            if queue.is_empty() {
                self.queued.remove(&session.resource_group);
            }
        }
        let key = name_key(session);
        if self.names.get(&key) == Some(&session.id) {
            self.names.remove(&key);
        }
        for agent in session.kernels.iter().filter_map(|kernel| kernel.agent.as_ref()) {
            if let Some(placed) = self.placed.get_mut(agent) {
                placed.sessions.remove(&session.id);
                placed.kernels -= 1;
                if placed.kernels == 0 {
                    self.placed.remove(agent);
                }
            }
        }
    }
}

/// The last sessions that died.
#[derive(Debug, Default)]
struct Graves {
    ids: HashSet<SessionId>,
    order: VecDeque<SessionId>,
}

impl Graves {
    /// More than can die while one read of the store is under way.
    const MOST: usize = 16_384;

    fn dig(&mut self, id: SessionId) {
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > Self::MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

/// Whether two versions of a session are found by the same things.
fn same_indexes(old: &Session, new: &Session) -> bool {
    let mut kernels = old.kernels.iter().zip(&new.kernels);
    let is_settled =
        |session: &Session| session.status != SessionStatus::Pending && !session.status.is_dead();
    is_settled(old)
        && is_settled(new)
        && old.name == new.name
        && old.owner.access_key == new.owner.access_key
        && old.resource_group == new.resource_group
        && old.kernels.len() == new.kernels.len()
        && kernels.all(|(old, new)| old.id == new.id && old.agent == new.agent)
}

fn name_key(session: &Session) -> (AccessKey, String) {
    (session.owner.access_key.clone(), session.name.clone())
}

/// The kernel under its current generation.
pub(crate) fn kernel_ref(kernel: &bai_core::Kernel) -> KernelRef {
    KernelRef { id: kernel.id, generation: kernel.generation }
}
