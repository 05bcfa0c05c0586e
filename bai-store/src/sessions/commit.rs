//! Guarded changes of sessions, many in one transaction, with few round trips however many there are.

use std::collections::{BTreeSet, HashMap, HashSet};

use bai_core::error::{Error, Result, code};
use bai_core::memory::store::rules;
use bai_core::port::store::{Committed, NewEvent, SessionChange};
use bai_core::{Session, SessionId, Timestamp};

use super::ledger::Ledger;
use super::rows::{SessionColumns, Writes, kernel_count, replace};
use super::{number_events, session_id};
use crate::convert::{plain, to_doc};
use crate::db::{Outcome, Tx, args};
use crate::dialect::{LOCK_SESSIONS, statements};
use crate::store::Store;

statements! {
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

/// A transaction that commits changes. What is accepted is written later, together with others.
#[derive(Debug)]
struct Batch {
    heads: HashMap<SessionId, Head>,
    ledger: Ledger,
    now: Timestamp,
    results: Vec<Result<Committed>>,
    /// Which results have not been written yet, and of which sessions.
    pending: Vec<usize>,
    pending_ids: HashSet<SessionId>,
    /// Sessions, at the versions they were read at.
    replacements: Vec<SessionColumns>,
    writes: Writes,
}

pub(super) async fn commit(store: &Store, changes: Vec<SessionChange>) -> Result<Vec<Result<Committed>>> {
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = store.db().begin().await?;
    let mut batch = Batch::open(&mut tx, &changes, store.0.clock.now()).await?;
    for change in changes {
        batch.apply(&mut tx, change).await?;
    }
    batch.flush(&mut tx).await?;
    tx.commit().await?;
    Ok(batch.results)
}

async fn read_heads(tx: &mut Tx, changes: &[SessionChange]) -> Result<HashMap<SessionId, Head>> {
    let ids: BTreeSet<_> = changes.iter().map(|change| change.session.id).collect();
    let mut heads = HashMap::with_capacity(ids.len());
    for row in tx.rows(LOCK_SESSIONS, &args![to_doc(&ids)?]).await? {
        let claim = if row.bool(5)? { Some((row.text(3)?, row.text(4)?)) } else { None };
        let head = Head { version: row.int(1)?, kernels: row.int(2)?, claim };
        heads.insert(session_id(&row.text(0)?)?, head);
    }
    Ok(heads)
}

impl Batch {
    async fn open(tx: &mut Tx, changes: &[SessionChange], now: Timestamp) -> Result<Self> {
        let heads = read_heads(tx, changes).await?;
        let guarded = changes.iter().filter(|change| change.guard_capacity);
        let agents = guarded.flat_map(|change| rules::held_by(&change.session).into_keys());
        Ok(Self {
            heads,
            ledger: Ledger::open(tx, agents).await?,
            now,
            results: Vec::with_capacity(changes.len()),
            pending: Vec::new(),
            pending_ids: HashSet::new(),
            replacements: Vec::new(),
            writes: Writes::default(),
        })
    }

    /// Decides on a change. An error here ends the whole transaction; a refusal is a result.
    async fn apply(&mut self, tx: &mut Tx, change: SessionChange) -> Result<()> {
        if self.pending_ids.contains(&change.session.id) {
            self.flush(tx).await?; // a second change of the same session comes after the first
        }
        if let Err(refused) = self.check(&change) {
            self.results.push(Err(refused));
            return Ok(());
        }
        let SessionChange { mut session, events, .. } = change;
        let claims = self.claims_a_name(&session);
        let read_at = session.version;
        session.version += 1;
        let columns = SessionColumns { version: read_at, ..SessionColumns::of(&session)? };
        if !claims {
            self.replacements.push(columns);
        } else if let Err(refused) = self.claim(tx, &session, columns).await? {
            self.results.push(Err(refused));
            return Ok(());
        }
        self.accept(session, events)
    }

    fn check(&self, change: &SessionChange) -> Result<()> {
        let session = &change.session;
        rules::require_kernels(session)?;
        let head = self.heads.get(&session.id).ok_or_else(|| rules::no_such_session(session.id))?;
        if head.version != session.version {
            return Err(rules::moved_on(session));
        }
        if change.guard_capacity { self.ledger.require_room(session) } else { Ok(()) }
    }

    /// Whether the session would live under another name than before. Only then can it find the name taken.
    fn claims_a_name(&self, session: &Session) -> bool {
        let claim = claim(session);
        claim.is_some() && self.heads.get(&session.id).is_none_or(|head| head.claim != claim)
    }

    /// Writes a session that claims a name at once: others before it may have given it up, and a refusal concerns it alone.
    async fn claim(&mut self, tx: &mut Tx, session: &Session, columns: SessionColumns) -> Result<Result<()>> {
        self.flush(tx).await?;
        tx.execute(SAVE, &[]).await?;
        let outcome = replace(tx, &[columns]).await?;
        if outcome == Outcome::Duplicate {
            tx.execute(RESTORE, &[]).await?;
        }
        tx.execute(FORGET, &[]).await?;
        Ok(match outcome {
            Outcome::Done(1) => Ok(()),
            Outcome::Done(_) => Err(rules::moved_on(session)),
            Outcome::Duplicate | Outcome::Dangling => Err(rules::name_taken(session)),
        })
    }

    fn accept(&mut self, session: Session, events: Vec<NewEvent>) -> Result<()> {
        let events: Vec<_> =
            events.into_iter().map(|event| rules::session_event(&session, event, 0, self.now)).collect();
        let before = self.heads.get(&session.id).map_or(0, |head| head.kernels);
        self.writes.add(&session, before, &events)?;
        self.ledger.enter(&session);
        self.heads.insert(session.id, Head::of(&session));
        self.pending.push(self.results.len());
        self.pending_ids.insert(session.id);
        self.results.push(Ok(Committed { session, events }));
        Ok(())
    }

    async fn flush(&mut self, tx: &mut Tx) -> Result<()> {
        let replacements = std::mem::take(&mut self.replacements);
        if !replacements.is_empty() {
            let done = replace(tx, &replacements).await?;
            if done != Outcome::Done(replacements.len() as u64) {
                // They are locked: this takes someone who writes past us. Nothing is committed.
                return Err(Error::of(code::STORE_FAILED, "sessions changed while they were locked"));
            }
        }
        let seqs = self.writes.flush(tx).await?;
        let pending = std::mem::take(&mut self.pending);
        self.pending_ids.clear();
        let written =
            self.results.iter_mut().enumerate().filter(|(index, _)| pending.binary_search(index).is_ok());
        number_events(written.filter_map(|(_, result)| result.as_mut().ok()), seqs);
        Ok(())
    }
}

impl Head {
    fn of(session: &Session) -> Self {
        Self { version: session.version, kernels: kernel_count(session), claim: claim(session) }
    }
}

/// What no other living session may have.
fn claim(session: &Session) -> Option<(String, String)> {
    let living = !session.status.is_dead();
    living.then(|| (plain(session.owner.access_key.as_str()).into_owned(), plain(&session.name).into_owned()))
}
