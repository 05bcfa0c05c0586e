//! New sessions, many in one transaction.

use std::collections::HashSet;

use bai_core::error::Result;
use bai_core::memory::store::rules;
use bai_core::port::store::{Committed, SessionChange};
use bai_core::{Session, SessionId};

use super::ledger::Ledger;
use super::number_events;
use super::rows::{Prepared, Writes};
use super::session_id;
use crate::convert::plain;
use crate::db::{Tx, args};
use crate::dialect::statements;
use crate::store::Store;

statements! {
    OCCUPANT = "SELECT id FROM sessions WHERE id = $1 OR (access_key = $2 AND name = $3 AND living) ORDER BY id <> $1";
}

pub(super) async fn insert(store: &Store, new: Vec<SessionChange>) -> Result<Vec<Result<Committed>>> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let now = store.0.clock.now();
    let new = new.into_iter().map(|mut change| {
        change.session.version = 0;
        Prepared::of(change, now)
    });
    let new: Vec<_> = new.collect();
    let one_by_one = depend_on_each_other(&new);
    let mut tx = if one_by_one { store.db().begin().await? } else { store.db().begin_single().await? };
    let mut ledger = Ledger::open(&mut tx, new.iter().flatten()).await?;
    let most = if one_by_one { 1 } else { new.len() };
    let mut results = Vec::with_capacity(new.len());
    let mut new = new.into_iter();
    while new.len() > 0 {
        let some = new.by_ref().take(most).collect();
        results.extend(insert_some(&mut tx, &mut ledger, some).await?);
    }
    tx.commit().await?;
    Ok(results)
}

/// Whether what becomes of one is to be known before the next: what a guarded one has room for, or who has an id.
fn depend_on_each_other(new: &[Result<Prepared>]) -> bool {
    let mut ids = HashSet::new();
    let is_apart = |change: &Prepared| !change.guard_capacity && ids.insert(change.session().id);
    !new.iter().flatten().all(is_apart)
}

async fn insert_some(
    tx: &mut Tx,
    ledger: &mut Ledger,
    new: Vec<Result<Prepared>>,
) -> Result<Vec<Result<Committed>>> {
    let mut writes = Writes::default();
    let mut add = |change: Prepared| {
        if change.guard_capacity {
            ledger.require_room(change.session())?;
        }
        Ok(writes.add(change, 0))
    };
    let mut results: Vec<_> = new.into_iter().map(|change| change.and_then(&mut add)).collect();
    let (inserted, seqs) = writes.insert(tx).await?;
    for result in &mut results {
        let Ok(Committed { session, .. }) = result else { continue };
        if inserted.contains(&session.id) {
            ledger.enter(session);
        } else {
            *result = Err(rules::session_exists(occupant(tx, session).await?, &session.name));
        }
    }
    number_events(results.iter_mut().flatten(), seqs);
    Ok(results)
}

/// The session that has the id, or lives under the name.
async fn occupant(tx: &mut Tx, session: &Session) -> Result<SessionId> {
    let id = session.id.to_string();
    let args = args![&id, plain(session.owner.access_key.as_str()), plain(&session.name)];
    let Some(row) = tx.rows(OCCUPANT, &args).await?.into_iter().next() else {
        return Ok(session.id); // it has ended in the meantime
    };
    session_id(&row.text(0)?)
}
