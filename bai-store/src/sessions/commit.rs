//! Guarded changes of sessions, many in one transaction, with few round trips however many there are.

use std::collections::{BTreeSet, HashMap, HashSet};

use bai_core::SessionId;
use bai_core::error::Result;
use bai_core::memory::store::rules;
use bai_core::port::store::{Committed, SessionChange};

use super::ledger::Ledger;
#[cfg(feature = "postgres")]
use super::quick::{self, Tried};
use super::rows::{Keys, Prepared, Writes, kernel_count, replace};
use super::{number_events, session_id};
use crate::db::{Outcome, Tx, args};
use crate::dialect::{Dialect, LOCK_SESSIONS, statements};
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
    keys: Keys,
}

/// A transaction that commits changes. What is accepted is written later, together with others.
#[derive(Debug)]
struct Batch {
    heads: HashMap<SessionId, Head>,
    ledger: Ledger,
    results: Vec<Result<Committed>>,
    /// Which results have not been written yet, and of which sessions.
    pending: Vec<usize>,
    pending_ids: HashSet<SessionId>,
    writes: Writes,
}

pub(super) async fn commit(store: &Store, changes: Vec<SessionChange>) -> Result<Vec<Result<Committed>>> {
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let now = store.0.clock.now();
    let changes: Vec<_> = changes.into_iter().map(|change| Prepared::of(change, now)).collect();
    match store.db().dialect() {
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => under_locks(store, changes).await,
        #[cfg(feature = "postgres")]
        Dialect::Postgres => quickly(store, changes).await,
    }
}

/// First what goes without locks, then the rest.
#[cfg(feature = "postgres")]
async fn quickly(store: &Store, changes: Vec<Result<Prepared>>) -> Result<Vec<Result<Committed>>> {
    let Tried { done, left } = quick::commit(&mut store.db().begin_single().await?, changes).await?;
    if left.is_empty() {
        return Ok(done.into_iter().flatten().map(Ok).collect());
    }
    let mut rest = under_locks(store, left).await?.into_iter();
    Ok(done.into_iter().filter_map(|done| done.map(Ok).or_else(|| rest.next())).collect())
}

async fn under_locks(store: &Store, changes: Vec<Result<Prepared>>) -> Result<Vec<Result<Committed>>> {
    let mut tx = store.db().begin().await?;
    let mut batch = Batch::open(&mut tx, &changes).await?;
    for change in changes {
        let applied = match change {
            Ok(prepared) => batch.apply(&mut tx, prepared).await?,
            Err(refused) => Err(refused),
        };
        if let Err(refused) = applied {
            batch.results.push(Err(refused));
        }
    }
    batch.flush(&mut tx).await?;
    tx.commit().await?;
    Ok(batch.results)
}

async fn read_heads<'a>(
    tx: &mut Tx,
    changes: impl Iterator<Item = &'a Prepared>,
) -> Result<HashMap<SessionId, Head>> {
    let ids: BTreeSet<_> = changes.map(|change| change.session().id.to_string()).collect();
    let mut heads = HashMap::with_capacity(ids.len());
    for row in tx.rows(LOCK_SESSIONS, &args![Vec::from_iter(ids)]).await? {
        let keys = Keys {
            access_key: row.text(3)?,
            name: row.text(4)?,
            living: row.bool(5)?,
            latest_at: row.int(6)?,
            terminated_at: row.opt_int(7)?,
        };
        heads.insert(session_id(&row.text(0)?)?, Head { version: row.int(1)?, kernels: row.int(2)?, keys });
    }
    Ok(heads)
}

impl Batch {
    async fn open(tx: &mut Tx, changes: &[Result<Prepared>]) -> Result<Self> {
        Ok(Self {
            heads: read_heads(tx, changes.iter().flatten()).await?,
            ledger: Ledger::open(tx, changes.iter().flatten()).await?,
            results: Vec::with_capacity(changes.len()),
            pending: Vec::new(),
            pending_ids: HashSet::new(),
            writes: Writes::default(),
        })
    }

    /// Decides on a change. An error outside ends the whole transaction; one inside is a refusal, which concerns it alone.
    async fn apply(&mut self, tx: &mut Tx, mut change: Prepared) -> Result<Result<()>> {
        if self.pending_ids.contains(&change.session().id) {
            self.flush(tx).await?; // a second change of the same session comes after the first
        }
        let head = match self.check(&change) {
            Ok(head) => head,
            Err(refused) => return Ok(Err(refused)),
        };
        let kernels = head.kernels;
        let keys = change.columns.keys();
        change.columns.keeps_indexes = head.keys == keys;
        let claims = keys.claim().is_some_and(|claim| head.keys.claim() != Some(claim));
        if claims && let Err(refused) = self.claim(tx, &change).await? {
            return Ok(Err(refused));
        }
        self.accept(change, kernels, keys, claims);
        Ok(Ok(()))
    }

    fn check(&self, change: &Prepared) -> Result<&Head> {
        let session = change.session();
        let head = self.heads.get(&session.id).ok_or_else(|| rules::no_such_session(session.id))?;
        if head.version != change.read_at() {
            return Err(rules::moved_on(session.id, change.read_at()));
        }
        if change.guard_capacity {
            self.ledger.require_room(session)?;
        }
        Ok(head)
    }

    /// Writes a session that claims a name at once: others before it may have given it up, and a refusal concerns it alone.
    async fn claim(&mut self, tx: &mut Tx, change: &Prepared) -> Result<Result<()>> {
        self.flush(tx).await?;
        tx.execute(SAVE, &[]).await?;
        let outcome = replace(tx, &change.columns).await?;
        if outcome == Outcome::Duplicate {
            tx.execute(RESTORE, &[]).await?;
        }
        tx.execute(FORGET, &[]).await?;
        Ok(match outcome {
            Outcome::Done(1) => Ok(()),
            Outcome::Done(_) => Err(rules::moved_on(change.session().id, change.read_at())),
            Outcome::Duplicate | Outcome::Dangling => Err(rules::name_taken(change.session())),
        })
    }

    /// Leaves the rest of a change to be written with others.
    fn accept(&mut self, change: Prepared, kernels: i64, keys: Keys, is_replaced: bool) {
        let session = change.session();
        self.ledger.enter(session);
        let head = Head { version: session.version, kernels: kernel_count(session), keys };
        self.pending_ids.insert(session.id);
        self.heads.insert(session.id, head);
        let committed = if is_replaced {
            self.writes.add_rest(change, kernels).0
        } else {
            self.writes.add(change, kernels)
        };
        self.pending.push(self.results.len());
        self.results.push(Ok(committed));
    }

    async fn flush(&mut self, tx: &mut Tx) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(());
        }
        let seqs = std::mem::take(&mut self.writes).replace(tx).await?;
        self.pending_ids.clear();
        let written =
            self.results.iter_mut().enumerate().filter(|(index, _)| pending.binary_search(index).is_ok());
        number_events(written.filter_map(|(_, result)| result.as_mut().ok()), seqs);
        Ok(())
    }
}
