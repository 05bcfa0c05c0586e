//! The scheduler's view of the cluster, kept hot: one [`Group`] per resource group that follows sessions, agents, limits and
//! options by what has changed.
//!
//! What has changed is noted by name only ([`Inbox`]) and looked up when a pass begins, so nothing depends on the order in
//! which notes arrive, and a note too many changes nothing. A group that gets into doubt is dropped and built afresh from
//! memory; the result is the same.

pub(crate) mod claim;
mod group;
mod inbox;
mod limits;
mod options;
mod project;
mod weights;

pub(crate) mod history;
pub(crate) mod settings;
pub(crate) mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;

use bai_core::port::store::Directory;
use bai_core::slots::SlotTypes;
use bai_core::{Session, SessionId, Timestamp};
use bai_scheduler::Plan;
use parking_lot::Mutex;

use self::settings::Settings;

pub(crate) use group::{AgentFacts, Facts, HotGroup};
pub(crate) use inbox::{Inbox, Notes};
pub(crate) use limits::pending_slots;
pub(crate) use options::lookback;
pub(crate) use project::outcome;

/// The groups of all resource groups with living sessions, as the manager that plans keeps them.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    hot: Mutex<BTreeMap<String, HotGroup>>,
}

impl Groups {
    /// Forgets everything: another manager may have planned meanwhile.
    pub(crate) fn clear(&self) {
        self.hot.lock().clear();
    }

    /// Forgets a group: the next pass builds it afresh.
    pub(crate) fn forget(&self, name: &str) {
        self.hot.lock().remove(name);
    }

    /// Makes a group, unless there is one that knows these slots. Says whether it is new, and has to be told of all sessions.
    pub(crate) fn open(
        &self,
        name: &str,
        directory: &Directory,
        settings: &Arc<Settings>,
        types: &SlotTypes,
    ) -> bool {
        let mut hot = self.hot.lock();
        let is_new = hot.get(name).is_none_or(|group| group.is_outdated(types));
        if is_new {
            hot.insert(name.to_owned(), HotGroup::new(name, directory, settings, types));
        }
        is_new
    }

    /// Does something with a group, if it is there.
    pub(crate) fn with<T>(&self, name: &str, work: impl FnOnce(&mut HotGroup) -> T) -> Option<T> {
        self.hot.lock().get_mut(name).map(work)
    }

    /// Whether there is such a group.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.hot.lock().contains_key(name)
    }

    /// Brings a group up to date. Says which other groups have to look again, because an owner uses more or less here.
    ///
    /// # Errors
    /// `Invalid` when a record cannot be scheduled at all; the group is then to be forgotten.
    pub(crate) fn follow(&self, facts: &Facts<'_>) -> bai_core::Result<Vec<String>> {
        let mut hot = self.hot.lock();
        let Some(mut group) = hot.remove(facts.name) else { return Ok(Vec::new()) };
        let followed = group.follow(facts, || hot.values());
        let others = tell_others(&mut hot, &mut group);
        hot.insert(facts.name.to_owned(), group);
        followed.map(|()| others)
    }

    /// Makes a pass over a group. Says which others have to look again.
    pub(crate) fn pass(&self, name: &str, now: Timestamp) -> (Plan, Vec<String>) {
        let mut hot = self.hot.lock();
        let Some(mut group) = hot.remove(name) else { return (Plan::default(), Vec::new()) };
        let plan = group.pass(now);
        let others = tell_others(&mut hot, &mut group);
        hot.insert(name.to_owned(), group);
        (plan, others)
    }

    /// A placement has been recorded: this is the session now.
    pub(crate) fn placed(&self, name: &str, session: Arc<Session>) {
        self.with(name, |group| group.placed(session));
    }

    /// A placement or a claim could not be recorded: the session waits as its record says.
    pub(crate) fn waits_again(&self, name: &str, session: SessionId, record: Option<&Session>) {
        self.with(name, |group| group.waits_again(session, record));
    }
}

/// Notes in the other groups whose usage has changed in `group`.
fn tell_others(others: &mut BTreeMap<String, HotGroup>, group: &mut HotGroup) -> Vec<String> {
    if others.is_empty() {
        return Vec::new();
    }
    let is_new = group.is_untold();
    let touched = group.take_touched();
    let concerned = |other: &mut HotGroup| {
        if is_new { other.doubt_elsewhere() } else { !touched.is_empty() && other.note_elsewhere(&touched) }
    };
    others.iter_mut().filter_map(|(name, other)| concerned(other).then(|| name.clone())).collect()
}
