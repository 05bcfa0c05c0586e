//! New sessions, many in one transaction.

use bai_core::error::Result;
use bai_core::memory::store::rules;
use bai_core::port::store::{Committed, SessionChange};
use bai_core::{Session, SessionId};

use super::ledger::Ledger;
use super::number_events;
use super::rows::{Prepared, Writes, insert_sessions};
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
    let mut tx = store.db().begin().await?;
    let mut ledger = Ledger::open(&mut tx, new.iter().flatten()).await?;
    // Whether a guarded one has room depends on which of those before it are in.
    let is_guarded = new.iter().flatten().any(|change| change.guard_capacity);
    let most = if is_guarded { 1 } else { new.len() };
    let mut results = Vec::with_capacity(new.len());
    let mut new = new.into_iter();
    while new.len() > 0 {
        let some = new.by_ref().take(most).collect();
        results.extend(insert_some(&mut tx, &mut ledger, some).await?);
    }
    tx.commit().await?;
    Ok(results)
}

async fn insert_some(
    tx: &mut Tx,
    ledger: &mut Ledger,
    new: Vec<Result<Prepared>>,
) -> Result<Vec<Result<Committed>>> {
    let room = |change: Prepared| {
        if change.guard_capacity {
            ledger.require_room(change.session())?;
        }
        Ok(change)
    };
    let new: Vec<_> = new.into_iter().map(|change| change.and_then(room)).collect();
    let columns: Vec<_> = new.iter().flatten().map(|change| &change.columns).collect();
    let mut inserted = insert_sessions(tx, &columns).await?.into_iter();
    let (mut writes, mut results) = (Writes::default(), Vec::with_capacity(new.len()));
    for change in new {
        results.push(match change {
            Ok(change) if inserted.next() == Some(true) => {
                ledger.enter(change.session());
                Ok(writes.add(change, 0).0)
            }
            Ok(change) => {
                let session = change.session();
                Err(rules::session_exists(occupant(tx, session).await?, &session.name))
            }
            Err(refused) => Err(refused),
        });
    }
    let seqs = writes.flush(tx).await?;
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
