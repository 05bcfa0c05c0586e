//! One queue of work per agent, so that a slow agent delays nobody else's kernels.
//!
//! An item says "look at this kernel", not what to do: the worker derives that from the newest state when its turn comes.
//! A worker lives while its queue has items.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bai_core::port::agent::KernelRef;
use bai_core::{AgentId, KernelId};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::command;
use super::effect::Effect;
use crate::manager::core::Core;

/// Something to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Item {
    /// A kernel of a living session.
    Kernel(KernelId),
    /// A kernel that should no longer be on the agent.
    Stale(KernelRef),
}

/// Queues of all agents.
#[derive(Debug, Default)]
pub(crate) struct AgentQueues {
    queues: Mutex<HashMap<AgentId, Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    due: HashMap<Item, Instant>,
    /// The last command about a kernel, until it is no longer needed.
    said: HashMap<Item, Said>,
    working: bool,
    wake: Arc<Notify>,
}

#[derive(Debug, Clone)]
struct Said {
    generation: u32,
    what: &'static str,
    at: Instant,
    failures: u32,
}

/// What a worker does next.
#[derive(Debug)]
enum Next {
    Look(Vec<Item>),
    Wait(Instant, Arc<Notify>),
    Finished,
}

impl AgentQueues {
    /// Adds an item; whether a worker has to be started.
    #[must_use]
    pub(crate) fn mark(&self, agent: &AgentId, item: Item) -> bool {
        let mut queues = self.queues.lock();
        let queue = queues.entry(agent.clone()).or_default();
        queue.due.insert(item, Instant::now());
        queue.wake.notify_one();
        !std::mem::replace(&mut queue.working, true)
    }

    /// Has an item looked at again after `delay`, unless it has been marked meanwhile.
    pub(crate) fn later(&self, agent: &AgentId, item: Item, delay: Duration) {
        if let Some(queue) = self.queues.lock().get_mut(agent) {
            queue.due.entry(item).or_insert_with(|| Instant::now() + delay);
        }
    }

    /// How long ago the same command was given successfully about the same generation, if it was.
    pub(crate) fn said(
        &self,
        agent: &AgentId,
        item: Item,
        generation: u32,
        effect: &str,
    ) -> Option<Duration> {
        let queues = self.queues.lock();
        let said = queues.get(agent)?.said.get(&item)?;
        let same = said.generation == generation && said.what == effect && said.failures == 0;
        same.then(|| said.at.elapsed())
    }

    /// Records a command; returns how often it has failed in a row.
    pub(crate) fn record(
        &self,
        agent: &AgentId,
        item: Item,
        generation: u32,
        what: &'static str,
        ok: bool,
    ) -> u32 {
        let mut queues = self.queues.lock();
        let Some(queue) = queues.get_mut(agent) else { return 0 };
        let before = queue.said.get(&item).filter(|said| said.generation == generation && said.what == what);
        let failures = if ok { 0 } else { before.map_or(0, |said| said.failures) + 1 };
        queue.said.insert(item, Said { generation, what, at: Instant::now(), failures });
        failures
    }

    /// The agent is another process now, which has heard nothing yet.
    pub(crate) fn unsay(&self, agent: &AgentId) {
        if let Some(queue) = self.queues.lock().get_mut(agent) {
            queue.said.clear();
        }
    }

    /// Nothing is to be done about the item any more.
    pub(crate) fn done(&self, agent: &AgentId, item: Item) {
        if let Some(queue) = self.queues.lock().get_mut(agent) {
            queue.said.remove(&item);
        }
    }

    fn next(&self, agent: &AgentId) -> Next {
        let mut queues = self.queues.lock();
        let Some(queue) = queues.get_mut(agent) else { return Next::Finished };
        let now = Instant::now();
        let mut ready: Vec<Item> =
            queue.due.iter().filter(|(_, due)| **due <= now).map(|(item, _)| *item).collect();
        ready.sort_unstable();
        for item in &ready {
            queue.due.remove(item);
        }
        if !ready.is_empty() {
            return Next::Look(ready);
        }
        if let Some(due) = queue.due.values().min() {
            return Next::Wait(*due, queue.wake.clone());
        }
        queues.remove(agent);
        Next::Finished
    }

    fn stopped(&self, agent: &AgentId) {
        if let Some(queue) = self.queues.lock().get_mut(agent) {
            queue.working = false;
        }
    }
}

/// Clears the mark of a worker that ended before its queue was empty, so that the next item starts another.
struct Shift<'a> {
    core: &'a Core,
    agent: &'a AgentId,
    finished: bool,
}

impl Drop for Shift<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.core.queues.stopped(self.agent);
        }
    }
}

/// Works through the queue of an agent until it is empty.
pub(crate) async fn work(core: Arc<Core>, agent: AgentId) {
    let mut shift = Shift { core: &core, agent: &agent, finished: false };
    while !core.tasks.is_stopping() {
        match core.queues.next(&agent) {
            Next::Look(items) => command::look_at(&core, &agent, items).await,
            Next::Wait(due, wake) => {
                tokio::select! {
                    () = core.tasks.stopped() => {}
                    () = wake.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                }
            }
            Next::Finished => {
                shift.finished = true;
                return;
            }
        }
    }
}

/// Pause before a failed command is given again.
pub(crate) fn backoff(failures: u32) -> Duration {
    Duration::from_millis(100 << failures.min(6))
}

/// Pause until a command that was given may be given again; `None` when it may be given now.
pub(crate) fn patience_left(effect: &Effect, said: Option<Duration>) -> Option<Duration> {
    let left = effect.patience().checked_sub(said?)?;
    (!left.is_zero()).then_some(left)
}
