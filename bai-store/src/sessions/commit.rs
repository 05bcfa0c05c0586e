//! Guarded changes of sessions, many in one transaction.

use std::collections::{BTreeSet, HashMap};

use bai_core::error::Result;
use bai_core::memory::store::rules;
use bai_core::port::store::{Committed, SessionChange};
use bai_core::{Session, SessionId, Timestamp};

use super::ledger::Ledger;
use super::rows;
use crate::convert::{plain, to_doc};
use crate::db::{Arg, Outcome, Tx, args};
use crate::dialect::{LOCK_SESSION, statements};
use crate::store::Store;

statements! {
    REPLACE = "UPDATE sessions SET version = version + 1, access_key = $3, name = $4, living = $5, user_id = $6,
               user_email = $7, domain = $8, project_id = $9, project = $10, resource_group = $11, session_type = $12,
               cluster_mode = $13, cluster_size = $14, status = $15, status_info = $16, result = $17,
               startup_command = $18, created_at = $19, starts_at = $20, terminated_at = $21, scheduled_at = $22,
               latest_at = $23, image_list = $24, agent_list = $25, doc = $26
               WHERE id = $1 AND version = $2";
    SAVE = "SAVEPOINT claim";
    RESTORE = "ROLLBACK TO SAVEPOINT claim";
    FORGET = "RELEASE SAVEPOINT claim";
}

/// What changes are checked against.
#[derive(Debug)]
struct Head {
    version: i64,
    kernels: i64,
    /// Owner and name, while it lives.
    claim: Option<(String, String)>,
}

/// The state of a transaction that commits changes.
#[derive(Debug)]
struct Batch {
    heads: HashMap<SessionId, Head>,
    ledger: Ledger,
    now: Timestamp,
}

pub(super) async fn commit(store: &Store, changes: Vec<SessionChange>) -> Result<Vec<Result<Committed>>> {
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = store.db().begin().await?;
    let heads = read_heads(&mut tx, &changes).await?;
    let guarded = changes.iter().filter(|change| change.guard_capacity);
    let agents = guarded.flat_map(|change| rules::held_by(&change.session).into_keys());
    let ledger = Ledger::open(&mut tx, agents).await?;
    let mut batch = Batch { heads, ledger, now: store.0.clock.now() };
    let mut results = Vec::with_capacity(changes.len());
    for change in changes {
        results.push(batch.apply(&mut tx, change).await?);
    }
    tx.commit().await?;
    Ok(results)
}

/// In the order of their ids, so that two batches never wait for each other.
async fn read_heads(tx: &mut Tx, changes: &[SessionChange]) -> Result<HashMap<SessionId, Head>> {
    let ids: BTreeSet<_> = changes.iter().map(|change| change.session.id).collect();
    let mut heads = HashMap::with_capacity(ids.len());
    for id in ids {
        if let Some(row) = tx.row(LOCK_SESSION, &args![id.to_string()]).await? {
            let claim = if row.bool(4)? { Some((row.text(2)?, row.text(3)?)) } else { None };
            heads.insert(id, Head { version: row.int(0)?, kernels: row.int(1)?, claim });
        }
    }
    Ok(heads)
}

impl Batch {
    /// The inner result is the one of this change; the outer error ends the whole transaction.
    async fn apply(&mut self, tx: &mut Tx, change: SessionChange) -> Result<Result<Committed>> {
        let SessionChange { mut session, events, guard_capacity } = change;
        let (kernels, claims) = match self.check(&session, guard_capacity) {
            Ok(checked) => checked,
            Err(refused) => return Ok(Err(refused)),
        };
        let read_at = session.version;
        session.version += 1;
        if let Err(refused) = replace(tx, &session, read_at, claims).await? {
            return Ok(Err(refused));
        }
        rows::put_kernels(tx, &session, kernels).await?;
        let events = rows::add_events(tx, &session, events, self.now).await?;
        self.ledger.enter(&session);
        self.heads.insert(session.id, Head::of(&session));
        Ok(Ok(Committed { session, events }))
    }

    /// How many kernels the stored session has, and whether the change lays claim to a name.
    fn check(&self, session: &Session, guard_capacity: bool) -> Result<(i64, bool)> {
        rules::require_kernels(session)?;
        let head = self.heads.get(&session.id).ok_or_else(|| rules::no_such_session(session.id))?;
        if head.version != session.version {
            return Err(rules::moved_on(session));
        }
        if guard_capacity {
            self.ledger.require_room(session)?;
        }
        let claim = claim(session);
        Ok((head.kernels, claim.is_some() && claim != head.claim))
    }
}

impl Head {
    fn of(session: &Session) -> Self {
        Self { version: session.version, kernels: rows::kernel_count(session), claim: claim(session) }
    }
}

fn claim(session: &Session) -> Option<(String, String)> {
    let living = !session.status.is_dead();
    living.then(|| (plain(session.owner.access_key.as_str()).into_owned(), plain(&session.name).into_owned()))
}

/// The one guarded update. Only one that claims a name can find it taken, and needs a savepoint for that.
async fn replace(tx: &mut Tx, session: &Session, read_at: i64, claims: bool) -> Result<Result<()>> {
    let doc = to_doc(session)?;
    let mut columns: Vec<_> = rows::columns(session).into_iter().chain([Arg::from(doc)]).collect();
    columns[1] = Arg::from(read_at);
    if !claims {
        return Ok(match tx.execute(REPLACE, &columns).await? {
            0 => Err(rules::moved_on(session)),
            _ => Ok(()),
        });
    }
    tx.execute(SAVE, &[]).await?;
    let outcome = tx.try_execute(REPLACE, &columns).await?;
    if outcome == Outcome::Duplicate {
        tx.execute(RESTORE, &[]).await?;
    }
    tx.execute(FORGET, &[]).await?;
    Ok(match outcome {
        Outcome::Done(0) => Err(rules::moved_on(session)),
        Outcome::Done(_) => Ok(()),
        Outcome::Duplicate | Outcome::Dangling => Err(rules::name_taken(session)),
    })
}
