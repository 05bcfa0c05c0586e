//! New sessions: all or none.

use bai_core::error::Result;
use bai_core::memory::store::rules;
use bai_core::port::store::{Committed, SessionChange};
use bai_core::{Session, SessionId, Timestamp};

use super::ledger::Ledger;
use super::number_events;
use super::rows::{SessionColumns, Writes, insert_sessions};
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
    let mut tx = store.db().begin().await?;
    let guarded = new.iter().filter(|change| change.guard_capacity);
    let agents = guarded.flat_map(|change| rules::held_by(&change.session).into_keys());
    let mut ledger = Ledger::open(&mut tx, agents).await?;
    let mut batch = Batch::default();
    for change in new {
        batch.add(&mut ledger, change, now)?;
    }
    if let Some(refused) = insert_sessions(&mut tx, &batch.columns).await? {
        let session = &batch.done[refused].session;
        return Err(rules::session_exists(occupant(&mut tx, session).await?, &session.name));
    }
    let seqs = batch.writes.flush(&mut tx).await?;
    number_events(batch.done.iter_mut(), seqs);
    tx.commit().await?;
    Ok(batch.done)
}

/// What is to be written, and what is answered then.
#[derive(Debug, Default)]
struct Batch {
    columns: Vec<SessionColumns>,
    writes: Writes,
    done: Vec<Committed>,
}

impl Batch {
    fn add(&mut self, ledger: &mut Ledger, change: SessionChange, now: Timestamp) -> Result<()> {
        let SessionChange { mut session, events, guard_capacity } = change;
        rules::require_kernels(&session)?;
        if guard_capacity {
            ledger.require_room(&session)?;
        }
        session.version = 1;
        self.columns.push(SessionColumns::of(&session)?);
        ledger.enter(&session);
        let events: Vec<_> =
            events.into_iter().map(|event| rules::session_event(&session, event, 0, now)).collect();
        self.writes.add(&session, 0, &events)?;
        self.done.push(Committed { session, events });
        Ok(())
    }
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
