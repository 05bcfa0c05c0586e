//! Claims in the records of waiting sessions, beside what old clients read: they outlive the manager that made them.

use bai_core::{Session, Timestamp};
use bai_scheduler::{Claim, GivenUp};
use serde::Deserialize;
use serde_json::{Value, json};

/// Key of `status_data`.
const KEY: &str = "preemption";
/// The claim.
const CLAIM: &str = "claim";
/// When to try again, after a claim that has come to nothing.
const NOT_BEFORE: &str = "not_before";

fn entry<'a, T: Deserialize<'a>>(session: &'a Session, key: &str) -> Option<T> {
    let value: &Value = session.status_data.get(KEY)?.get(key)?;
    T::deserialize(value).ok()
}

/// The claim of a session.
pub(crate) fn recorded(session: &Session) -> Option<Claim> {
    entry(session, CLAIM)
}

/// Until when a session pushes nobody out.
pub(super) fn not_before(session: &Session) -> Option<Timestamp> {
    entry(session, NOT_BEFORE)
}

/// Records a claim.
pub(crate) fn record(session: &mut Session, claim: &Claim) {
    session.status_data.insert(KEY.into(), json!({ CLAIM: claim }));
}

/// Records that a claim is given up.
pub(crate) fn give_up(session: &mut Session, given_up: &GivenUp) {
    session.status_data.insert(KEY.into(), json!({ NOT_BEFORE: given_up.again_at }));
}

/// Forgets everything: the session has got its room.
pub(crate) fn clear(session: &mut Session) {
    session.status_data.shift_remove(KEY);
}
