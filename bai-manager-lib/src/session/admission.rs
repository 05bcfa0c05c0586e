//! How much waits of each keypair, and whether more may (spec scheduler.md, sections 7 and 11; W-19).
//!
//! Every manager checks by its own memory. Sessions on their way to the store count, so one manager is exact; of several, each
//! knows what the others have just enqueued once their events have arrived.

use std::collections::HashMap;

use bai_core::error::code;
use bai_core::identity::KeypairPolicy;
use bai_core::slots::{ResourceSlots, SlotTypes};
use bai_core::{AccessKey, Error, Result, Session, SessionId};

use crate::scheduling::pending_slots;

/// Limits on what waits of one keypair.
#[derive(Debug, Default)]
pub(crate) struct PendingLimits {
    sessions: Option<u32>,
    slots: Option<ResourceSlots>,
}

impl PendingLimits {
    /// Those of a policy.
    pub(crate) fn of(policy: &KeypairPolicy, types: &SlotTypes) -> Self {
        Self { sessions: policy.max_pending_session_count, slots: pending_slots(types, policy) }
    }
}

/// What waits, by keypair.
#[derive(Debug, Default)]
pub(super) struct Pending {
    accounts: HashMap<AccessKey, Account>,
    /// Sessions that are counted and not enqueued yet.
    arriving: HashMap<SessionId, (AccessKey, ResourceSlots)>,
}

#[derive(Debug, Default)]
struct Account {
    sessions: u32,
    slots: ResourceSlots,
}

impl Pending {
    /// Counts a session that is about to be enqueued.
    pub(super) fn admit(&mut self, session: &Session, limits: &PendingLimits) -> Result<()> {
        let account = self.accounts.get(&session.owner.access_key);
        let (sessions, mut slots) =
            account.map_or_else(Default::default, |account| (account.sessions, account.slots.clone()));
        if let Some(most) = limits.sessions.filter(|most| sessions >= *most) {
            let message = format!("You cannot have more than {most} waiting sessions");
            return Err(Error::of(code::TOO_MUCH_WAITS, message).with("waiting", sessions));
        }
        let requested = session.requested();
        slots.add(&requested);
        let over = limits.slots.iter().flatten().find(|(name, most)| slots.get(name.as_str()) > **most);
        if let Some((name, most)) = over {
            let message = format!("Waiting sessions cannot ask for more than {most} of {name} together");
            return Err(Error::of(code::TOO_MUCH_WAITS, message).with("asked", slots.get(name.as_str())));
        }
        self.count(session);
        self.arriving.insert(session.id, (session.owner.access_key.clone(), requested));
        Ok(())
    }

    /// A session that may have been admitted is enqueued and counted as such from now on, or has not been.
    pub(super) fn arrived(&mut self, session: SessionId) {
        if let Some((key, slots)) = self.arriving.remove(&session) {
            self.subtract(&key, &slots);
        }
    }

    pub(super) fn count(&mut self, session: &Session) {
        let account = self.accounts.entry(session.owner.access_key.clone()).or_default();
        account.sessions += 1;
        account.slots.add(&session.requested());
    }

    pub(super) fn discount(&mut self, session: &Session) {
        self.subtract(&session.owner.access_key, &session.requested());
    }

    fn subtract(&mut self, key: &AccessKey, slots: &ResourceSlots) {
        let Some(account) = self.accounts.get_mut(key) else { return };
        account.sessions = account.sessions.saturating_sub(1);
        account.slots.take(slots);
        if account.sessions == 0 {
            self.accounts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use bai_testkit::fixture::{session, slots};

    use super::*;

    #[test]
    fn a_session_counts_once_from_admission_to_the_end_of_its_wait() {
        let limits = PendingLimits { sessions: Some(2), slots: None };
        let mut pending = Pending::default();
        let (one, two, three) = (session("one"), session("two"), session("three"));
        pending.admit(&one, &limits).unwrap();
        pending.admit(&two, &limits).unwrap();
        assert_eq!(pending.admit(&three, &limits).unwrap_err().code(), code::TOO_MUCH_WAITS);
        pending.arrived(one.id);
        pending.count(&one);
        assert!(pending.admit(&three, &limits).is_err());
        pending.arrived(two.id); // it was refused by the store
        pending.admit(&three, &limits).unwrap();
        pending.arrived(three.id);
        pending.discount(&one);
        assert!(pending.accounts.is_empty() && pending.arriving.is_empty());
    }

    #[test]
    fn amounts_are_summed_and_slots_that_are_not_named_are_free() {
        let limits = PendingLimits { sessions: None, slots: Some([("cpu", 2_u64)].into_iter().collect()) };
        let mut pending = Pending::default();
        let mut big = session("big");
        big.kernels[0].requested = slots(1, 1 << 60);
        pending.admit(&big, &limits).unwrap();
        pending.admit(&session("small"), &limits).unwrap();
        let error = pending.admit(&session("over"), &limits).unwrap_err();
        assert_eq!(error.message(), "Waiting sessions cannot ask for more than 2 of cpu together");
        let mut none = session("none");
        none.kernels[0].requested = slots(0, 1);
        pending.admit(&none, &limits).unwrap();
    }
}
