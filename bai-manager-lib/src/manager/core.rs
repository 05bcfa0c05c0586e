//! What services and reconcilers share: memory of the living sessions, the way to change them, and the wake-ups that
//! follow from a change.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bai_core::port::store::{Committed, SessionChange, SessionEvent};
use bai_core::{Error, Result, Session, SessionId, Timestamp, error::code};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, mpsc};

use super::tasks::Tasks;
use super::{Backends, ManagerOptions};
use crate::agent::AgentTable;
use crate::identity::IdentityService;
use crate::idle::IdleBook;
use crate::image::ImageService;
use crate::reconcile::callback::Notice;
use crate::reconcile::queue::{self, AgentQueues, Item};
use crate::scheduling::history::Histories;
use crate::scheduling::settings::SettingsCache;
use crate::scheduling::turns::Turns;
use crate::scheduling::{Groups, Inbox, outcome};
use crate::session::commit::{Absorb, Committer};
use crate::session::event::events_of;
use crate::session::registry::{Registry, Replaced, kernel_ref};

/// How often a change is tried again after it lost a race.
const RACES: usize = 16;

/// Shared state of a manager.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) backends: Backends,
    pub(crate) options: ManagerOptions,
    pub(crate) registry: Registry,
    pub(crate) commits: Committer,
    pub(crate) agents: AgentTable,
    pub(crate) images: ImageService,
    pub(crate) identities: IdentityService,
    pub(crate) groups: DirtyGroups,
    /// What the scheduler has to look at again, and what it knows.
    pub(crate) inbox: Inbox,
    pub(crate) sokovan: Groups,
    pub(crate) settings: SettingsCache,
    pub(crate) histories: Histories,
    pub(crate) turns: Turns,
    pub(crate) queues: AgentQueues,
    pub(crate) tasks: Tasks,
    pub(crate) hub: broadcast::Sender<Arc<SessionEvent>>,
    pub(crate) outbox: mpsc::Sender<Arc<SessionEvent>>,
    pub(crate) callbacks: mpsc::Sender<Notice>,
    /// Held while a commit becomes known and is announced: what follows from it is announced after it.
    pub(crate) announcing: Mutex<()>,
    pub(crate) leader: AtomicBool,
    /// Whether memory may lag behind the store.
    pub(crate) doubt: Doubt,
    pub(crate) queries: Mutex<HashMap<SessionId, u64>>,
    pub(crate) idle: IdleBook,
}

/// Set when an outcome of the store is unknown, until the next resync.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    raised: AtomicU64,
    settled: AtomicU64,
    pub(crate) wake: Notify,
}

impl Doubt {
    /// An outcome is unknown.
    pub(crate) fn raise(&self) {
        self.raised.fetch_add(1, Ordering::AcqRel);
        self.wake.notify_one();
    }

    /// Whether memory may lag.
    pub(crate) fn is_raised(&self) -> bool {
        self.count() != self.settled.load(Ordering::Acquire)
    }

    /// How often a doubt has been raised; to be taken before a resync.
    pub(crate) fn count(&self) -> u64 {
        self.raised.load(Ordering::Acquire)
    }

    /// A resync that began at `count` is complete.
    pub(crate) fn settle(&self, count: u64) {
        self.settled.fetch_max(count, Ordering::AcqRel);
    }
}

/// Resource groups whose queue has to be looked at.
#[derive(Debug, Default)]
pub(crate) struct DirtyGroups {
    names: Mutex<BTreeSet<String>>,
    pub(crate) wake: Notify,
}

impl DirtyGroups {
    pub(crate) fn mark(&self, group: &str) {
        let mut names = self.names.lock();
        if !names.contains(group) {
            names.insert(group.to_owned());
        }
        drop(names);
        self.wake.notify_one();
    }

    pub(crate) fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.names.lock())
    }
}

impl Core {
    pub(crate) fn now(&self) -> Timestamp {
        self.backends.clock.now()
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.leader.load(Ordering::Acquire)
    }

    /// Whether memory knows everything that lives: no other process writes to the store, and no outcome is in doubt.
    pub(crate) fn is_current(&self) -> bool {
        self.is_exclusive() && !self.doubt.is_raised()
    }

    /// Whether no other process writes to the store.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.backends.sessions.capability().exclusive
    }

    /// The session with `id`, dead ones included: the newest version there is.
    pub(crate) async fn load(self: &Arc<Self>, id: SessionId) -> Result<Option<Arc<Session>>> {
        let known = self.registry.get(id);
        if known.is_some() && self.is_current() {
            return Ok(known);
        }
        self.reload(id).await
    }

    /// Reads a session from the store into memory.
    pub(crate) async fn reload(self: &Arc<Self>, id: SessionId) -> Result<Option<Arc<Session>>> {
        let Some(session) = self.backends.sessions.get(id).await? else { return Ok(None) };
        let session = Arc::new(session);
        if !session.status.is_dead() || self.registry.get(id).is_some() {
            self.take(&session);
        }
        Ok(Some(session))
    }

    /// Changes a session: applies `change` to its newest version and stores the result with the events that follow from it.
    /// A lost race is retried on the newer version; a change that changes nothing stores nothing.
    ///
    /// # Errors
    /// Those of `change`; `NotFound` when there is no such session; those of the store.
    pub(crate) async fn update(
        self: &Arc<Self>,
        id: SessionId,
        change: impl FnMut(&mut Session, Timestamp) -> Result<()> + Send,
    ) -> Result<Arc<Session>> {
        self.update_guarded(id, false, change).await
    }

    /// As [`Core::update`]; with `guard_capacity` the store refuses when an agent would hold more than it has.
    pub(crate) async fn update_guarded(
        self: &Arc<Self>,
        id: SessionId,
        guard_capacity: bool,
        mut change: impl FnMut(&mut Session, Timestamp) -> Result<()> + Send,
    ) -> Result<Arc<Session>> {
        let missing = || Error::of(code::SESSION_NOT_FOUND, "no such session").with("session", id);
        let mut before = match self.registry.get(id) {
            Some(session) => session,
            None => self.reload(id).await?.ok_or_else(missing)?,
        };
        for _ in 0..RACES {
            let mut after = Session::clone(&before);
            change(&mut after, self.now())?;
            if after == *before {
                return Ok(before);
            }
            let events = events_of(Some(&before), &after);
            let result = self.commits.commit(SessionChange { session: after, events, guard_capacity }).await;
            match result {
                Ok(session) => return Ok(session),
                Err(error) if error.code() == code::SESSION_MOVED_ON => {
                    before = self.newer_than(&before, error).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::of(code::SESSION_MOVED_ON, "the session keeps being changed by others")
            .with("session", id))
    }

    /// A version newer than `stale`, or the error when there is none: the conflict was about something else.
    async fn newer_than(self: &Arc<Self>, stale: &Session, conflict: Error) -> Result<Arc<Session>> {
        let newer = |session: &Arc<Session>| session.version > stale.version;
        if let Some(session) = self.registry.get(stale.id).filter(newer) {
            return Ok(session);
        }
        self.reload(stale.id).await?.filter(newer).ok_or(conflict)
    }

    /// Takes a version of a session into memory and wakes whoever has to act on it.
    pub(crate) fn take(self: &Arc<Self>, session: &Arc<Session>) {
        let old = match self.registry.put(session.clone()) {
            Replaced::Stale => return,
            Replaced::Nothing => None,
            Replaced::Older(old) => Some(old),
        };
        if self.is_leader() {
            if session.status.is_dead() {
                self.histories.ended(session);
            }
            self.inbox.note(&session.resource_group, session.id, outcome(session));
        }
        self.wake(old.as_deref(), session);
    }

    fn wake(self: &Arc<Self>, old: Option<&Session>, new: &Session) {
        if new.status == bai_core::SessionStatus::Pending {
            self.groups.mark(&new.resource_group);
        }
        if let Some(old) = old {
            self.wake_after_release(old, new);
            self.discard_replaced(old, new);
        }
        if new.status.is_dead() {
            self.queries.lock().remove(&new.id);
            return;
        }
        for kernel in new.kernels.iter().filter(|kernel| !kernel.status.is_dead()) {
            if let Some(agent) = &kernel.agent {
                self.mark(agent, Item::Kernel(kernel.id));
            }
        }
    }

    /// Capacity or quota has become free, or a dependency has ended: the queues of all groups may go on.
    fn wake_after_release(&self, old: &Session, new: &Session) {
        let ended = new.status.is_dead() || (old.status.occupies_quota() && !new.status.occupies_quota());
        if ended || holds_other(old, new) {
            self.groups.mark(&new.resource_group);
            self.mark_pending_groups();
        }
    }

    /// Marks every group that has a queue.
    pub(crate) fn mark_pending_groups(&self) {
        for group in self.registry.queued_groups() {
            self.groups.mark(&group);
        }
    }

    /// Kernels that were on an agent and no longer are have to be removed there.
    fn discard_replaced(self: &Arc<Self>, old: &Session, new: &Session) {
        for kernel in old.kernels.iter().filter(|kernel| !kernel.status.is_dead()) {
            let Some(agent) = &kernel.agent else { continue };
            let moved = new
                .kernel(kernel.id)
                .is_none_or(|now| now.status.is_dead() || now.agent.as_ref() != Some(agent));
            if moved {
                self.mark(agent, Item::Stale(kernel_ref(kernel)));
            }
        }
    }

    /// Has the agent's worker look at `item`.
    pub(crate) fn mark(self: &Arc<Self>, agent: &bai_core::AgentId, item: Item) {
        if self.queues.mark(agent, item) && !self.tasks.is_stopping() {
            self.tasks.spawn(queue::work(self.clone(), agent.clone()));
        }
    }
}

/// Whether some kernel no longer holds what it held.
fn holds_other(old: &Session, new: &Session) -> bool {
    let held = old.kernels.iter().filter(|kernel| !kernel.allocated.is_empty());
    held.into_iter().any(|old| new.kernel(old.id).is_none_or(|new| new.allocated != old.allocated))
}

impl Absorb for Arc<Core> {
    fn absorb(&self, committed: Committed) -> Arc<Session> {
        let session = Arc::new(committed.session);
        let _in_order = self.announcing.lock();
        self.take(&session);
        for event in committed.events {
            self.announce(&session, Arc::new(event));
        }
        session
    }

    fn doubt(&self) {
        self.doubt.raise();
    }
}

impl Core {
    /// Tells local subscribers, other processes and the callback of the session.
    fn announce(&self, session: &Session, event: Arc<SessionEvent>) {
        tracing::info!(
            session = %event.session,
            status = %event.status,
            kernel = event.event.kernel.map(tracing::field::display),
            reason = event.event.reason,
            "{}",
            event.event.name
        );
        // Without subscribers there is nobody to tell.
        _ = self.hub.send(event.clone());
        if let Some(notice) = Notice::of(session, &event)
            && self.callbacks.try_send(notice).is_err()
        {
            tracing::warn!(session = %session.id, "too many callbacks are waiting: one is dropped");
        }
        if let Err(error) = self.outbox.try_send(event) {
            tracing::debug!(
                seq = error.into_inner().seq,
                "the outbox is full: the next sweep publishes the event"
            );
        }
    }
}
