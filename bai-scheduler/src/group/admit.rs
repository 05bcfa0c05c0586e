//! Checks before a session is enqueued (spec scheduler.md, sections 7 and 15, W-19).

use bai_core::Result;

use super::Group;
use crate::model::{Holder, Limits, Session};
use crate::validate::Failure;

impl Group {
    /// What keeps a session from being enqueued; nothing when the list is empty. The limits are those of its keypair:
    /// how many sessions may wait and what they may ask for together, the highest priority, and kernels per session. What can never
    /// be right is refused here too: a type that the group does not take, or amounts that its image does not.
    ///
    /// # Errors
    /// `Invalid` when an amount is negative.
    pub fn admit(&mut self, session: &Session) -> Result<Vec<Failure>> {
        let number = self.requests.intern(session, &mut self.table, &self.options.slot_order)?;
        let mut failures = Vec::new();
        let mut fail = |name: &str, message: String| {
            failures.push(Failure { name: name.to_owned(), message });
        };
        if let Some(request) = self.requests.get(number) {
            let holder = Holder::Keypair(session.owner.access_key.clone());
            if let Some(account) = self.accounts.find(&holder).map(|number| self.accounts.get(number)) {
                for (name, message) in counts(&account.limits, account.pending, session) {
                    fail(name, message);
                }
                if let Some((slot, most)) = account.pending_excess(&request.total) {
                    let (name, most) = (self.table.name(slot), self.table.text(slot, most));
                    fail(
                        "pending_resource_limit",
                        format!("Waiting sessions cannot ask for more than {most} of {name} together"),
                    );
                }
            }
            if !request.private() && !self.options.allowed_types.contains(&request.session_type()) {
                let kind = request.session_type();
                fail("session_type", format!("The resource group does not take {kind} sessions"));
            }
            for (name, message) in &request.flaws {
                fail(name, message.clone());
            }
        }
        self.requests.release(number);
        Ok(failures)
    }
}

fn counts(limits: &Limits, pending: u32, session: &Session) -> Vec<(&'static str, String)> {
    let mut failures = Vec::new();
    if let Some(most) = limits.max_pending_sessions.filter(|most| pending >= *most) {
        failures
            .push(("pending_session_limit", format!("You cannot have more than {most} waiting sessions")));
    }
    if let Some(most) = limits.max_priority.filter(|most| session.priority > *most) {
        failures.push(("priority_limit", format!("You cannot ask for a priority above {most}")));
    }
    let kernels = session.kernels.len();
    if limits.max_kernels > 0 && kernels > limits.max_kernels as usize {
        let most = limits.max_kernels;
        failures.push(("kernels_limit", format!("{kernels} kernels asked, at most {most} per session")));
    }
    failures
}
