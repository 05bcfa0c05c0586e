//! Notes of what has changed since a group was last brought up to date.

use std::collections::{BTreeMap, HashSet};

use bai_core::SessionId;
use bai_scheduler::Outcome;
use parking_lot::Mutex;

/// Notes for all groups. Taking a group's notes opens its inbox; before that nothing is kept for it.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    notes: Mutex<BTreeMap<String, Notes>>,
}

/// Notes for one group.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Sessions of the group that have changed.
    pub(crate) sessions: HashSet<SessionId>,
    /// Sessions of any group that have come to their end.
    pub(crate) outcomes: BTreeMap<SessionId, Outcome>,
}

impl Inbox {
    /// A session of the group has changed; it may have come to its end.
    pub(crate) fn note(&self, group: &str, session: SessionId, outcome: Option<Outcome>) {
        let mut notes = self.notes.lock();
        if let Some(own) = notes.get_mut(group) {
            own.sessions.insert(session);
        }
        if let Some(outcome) = outcome {
            for any in notes.values_mut() {
                any.outcomes.insert(session, outcome);
            }
        }
    }

    /// Takes the notes of a group.
    pub(crate) fn take(&self, group: &str) -> Notes {
        let mut notes = self.notes.lock();
        notes.insert(group.to_owned(), Notes::default()).unwrap_or_default()
    }

    /// Closes all inboxes.
    pub(crate) fn clear(&self) {
        self.notes.lock().clear();
    }
}
