//! Changes in two round trips instead of six, for PostgreSQL: what they are checked against is read without a lock, and one
//! statement writes those for which it still holds.
//!
//! Nothing is refused here. What cannot be written so is left to be done under locks, where it is known why.

use std::borrow::Cow;
use std::collections::HashSet;

use bai_core::SessionId;
use bai_core::error::Result;
use bai_core::memory::store::rules;
use bai_core::port::store::Committed;

use super::ledger::Ledger;
use super::number_events;
use super::rows::{Prepared, lists_of, write_all};
use crate::convert::plain;
use crate::db::{Arg, Tx};
use crate::dialect::REPLACE_KNOWN;

/// What has become of changes.
#[derive(Debug)]
pub(super) struct Tried {
    /// In the place of each change what was written.
    pub(super) done: Vec<Option<Committed>>,
    /// All others in their order.
    pub(super) left: Vec<Result<Prepared>>,
}

/// Writes the changes that nothing stands in the way of; of each session the first at most.
pub(super) async fn commit(tx: &mut Tx, changes: Vec<Result<Prepared>>) -> Result<Tried> {
    let mut room = Ledger::read(tx, changes.iter().flatten()).await?;
    let mut seen = HashSet::new();
    let mut may_go = |change: &&Prepared| seen.insert(change.session().id) && room.admits(change);
    let picked: Vec<_> = changes.iter().flatten().filter(&mut may_go).collect();
    if picked.is_empty() {
        return Ok(sort_out(changes, Vec::new(), Vec::new()));
    }
    let mut args = lists_of(picked.iter().copied());
    args.extend(shares(&picked, &room));
    let (written, seqs) = write_all(tx, REPLACE_KNOWN, &args).await?;
    Ok(sort_out(changes, written, seqs))
}

/// Which guarded session is to be placed on which agent, and how much had been placed there when room was found.
fn shares<'a>(changes: &[&'a Prepared], room: &Ledger) -> [Arg<'a>; 3] {
    let guarded = changes.iter().filter(|change| change.guard_capacity);
    let shares = guarded.flat_map(|change| {
        let agents = rules::held_by(change.session()).into_keys();
        agents.map(|agent| (change.columns.id.as_str(), agent))
    });
    let shares: Vec<_> = shares.collect();
    [
        Arg::Texts(shares.iter().map(|(session, _)| Some(Cow::Borrowed(*session))).collect()),
        Arg::Texts(shares.iter().map(|(_, agent)| Some(plain(agent.as_str()))).collect()),
        Arg::Ints(shares.iter().map(|(_, agent)| room.placements(agent)).collect()),
    ]
}

/// Tells the changes that have been written, the first of each session, from those that are left.
fn sort_out(changes: Vec<Result<Prepared>>, written: Vec<SessionId>, seqs: Vec<i64>) -> Tried {
    let mut written: HashSet<_> = written.into_iter().collect();
    let mut left = Vec::new();
    let done = changes.into_iter().map(|change| match change {
        Ok(change) if written.remove(&change.session().id) => Some(change.committed),
        change => {
            left.push(change);
            None
        }
    });
    let mut done: Vec<_> = done.collect();
    number_events(done.iter_mut().flatten(), seqs);
    Tried { done, left }
}
