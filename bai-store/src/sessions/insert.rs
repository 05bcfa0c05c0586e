//! New sessions: all or none.

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

pub(super) async fn insert(store: &Store, new: Vec<SessionChange>) -> Result<Vec<Committed>> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let now = store.0.clock.now();
    let new = new.into_iter().map(|mut change| {
        change.session.version = 0;
        Prepared::of(change, now)
    });
    let new = new.collect::<Result<Vec<_>>>()?;
    let mut tx = store.db().begin().await?;
    let mut ledger = Ledger::open(&mut tx, &new).await?;
    let (mut writes, mut columns, mut done) = (Writes::default(), Vec::new(), Vec::new());
    for prepared in new {
        if prepared.guard_capacity {
            ledger.require_room(prepared.session())?;
        }
        ledger.enter(prepared.session());
        let (committed, row) = writes.add(prepared, 0);
        columns.push(row);
        done.push(committed);
    }
    if let Some(refused) = insert_sessions(&mut tx, &columns).await? {
        let session = &done[refused].session;
        return Err(rules::session_exists(occupant(&mut tx, session).await?, &session.name));
    }
    let seqs = writes.flush(&mut tx).await?;
    number_events(done.iter_mut(), seqs);
    tx.commit().await?;
    Ok(done)
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
