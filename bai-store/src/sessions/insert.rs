//! New sessions: all or none.

use bai_core::error::Result;
use bai_core::memory::store::rules;
use bai_core::port::store::{Committed, SessionChange};
use bai_core::{Session, SessionId, Timestamp};

use super::ledger::Ledger;
use super::number_events;
use super::rows::{SessionColumns, Writes};
use crate::convert::{corrupt, plain};
use crate::db::{Tx, args};
use crate::dialect::statements;
use crate::store::Store;

statements! {
    INSERT = "INSERT INTO sessions (id, version, access_key, name, living, user_id, user_email, domain, project_id, project,
              resource_group, session_type, cluster_mode, cluster_size, status, status_info, result, startup_command,
              created_at, starts_at, terminated_at, scheduled_at, latest_at, image_list, agent_list, doc)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
              $23, $24, $25, $26) ON CONFLICT DO NOTHING";
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
    let mut writes = Writes::default();
    let mut done = Vec::with_capacity(new.len());
    for change in new {
        let committed = insert_one(&mut tx, &mut ledger, change, now).await?;
        writes.add(&committed.session, 0, &committed.events)?;
        done.push(committed);
    }
    let seqs = writes.flush(&mut tx).await?;
    number_events(done.iter_mut(), seqs);
    tx.commit().await?;
    Ok(done)
}

async fn insert_one(
    tx: &mut Tx,
    ledger: &mut Ledger,
    change: SessionChange,
    now: Timestamp,
) -> Result<Committed> {
    let SessionChange { mut session, events, guard_capacity } = change;
    rules::require_kernels(&session)?;
    if guard_capacity {
        ledger.require_room(&session)?;
    }
    session.version = 1;
    if tx.execute(INSERT, &SessionColumns::of(&session)?.args()).await? == 0 {
        let existing = occupant(tx, &session).await?;
        return Err(rules::session_exists(existing, &session.name));
    }
    ledger.enter(&session);
    let events = events.into_iter().map(|event| rules::session_event(&session, event, 0, now)).collect();
    Ok(Committed { session, events })
}

/// The session that has the id, or lives under the name.
async fn occupant(tx: &mut Tx, session: &Session) -> Result<SessionId> {
    let id = session.id.to_string();
    let args = args![&id, plain(session.owner.access_key.as_str()), plain(&session.name)];
    let Some(row) = tx.rows(OCCUPANT, &args).await?.into_iter().next() else {
        return Ok(session.id); // it has ended in the meantime
    };
    let occupant = row.text(0)?;
    occupant.parse().map_err(|error: bai_core::Error| corrupt("session", &occupant).source(error))
}
