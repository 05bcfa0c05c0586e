//! Sessions: the columns and statements, and the port on top of the modules below.

mod commit;
mod filter;
mod insert;
mod ledger;
mod list;
#[cfg(feature = "postgres")]
mod quick;
mod rows;

use async_trait::async_trait;
use bai_core::error::{Error, Result};
use bai_core::port::SessionStore;
use bai_core::port::store::{Committed, Page, SessionChange, SessionEvent, SessionQuery, StoreCapability};
use bai_core::{Session, SessionId, Timestamp};

use crate::convert::{corrupt, from_doc, micros};
use crate::db::{Row, args};
use crate::dialect::{ENDED, MARK_PUBLISHED, REMOVE, statements};
use crate::store::Store;

#[cfg(test)]
pub(crate) use rows::STATEMENTS as ROW_STATEMENTS;
#[cfg(test)]
pub(crate) use {commit::STATEMENTS as COMMIT_STATEMENTS, insert::STATEMENTS as INSERT_STATEMENTS};

statements! {
    GET = "SELECT id, doc FROM sessions WHERE id = $1";
    VERSIONS = "SELECT id, version FROM sessions WHERE living";
    HISTORY = "SELECT seq, doc FROM session_events WHERE session_id = $1 ORDER BY seq";
    UNPUBLISHED = "SELECT seq, doc FROM outbox JOIN session_events USING (seq) ORDER BY seq LIMIT $1";
}

#[async_trait]
impl SessionStore for Store {
    fn capability(&self) -> StoreCapability {
        let mut capability = StoreCapability::default();
        capability.exclusive = self.0.exclusive;
        // While one call waits for the database, or for the others to write, the next is put together.
        capability.parallel_commits = 3;
        capability
    }

    async fn insert(&self, new: Vec<SessionChange>) -> Result<Vec<Result<Committed>>> {
        insert::insert(self, new).await
    }

    async fn commit(&self, changes: Vec<SessionChange>) -> Result<Vec<Result<Committed>>> {
        commit::commit(self, changes).await
    }

    async fn get(&self, id: SessionId) -> Result<Option<Session>> {
        self.db().row(GET, &args![id.to_string()]).await?.as_ref().map(session).transpose()
    }

    async fn versions(&self) -> Result<Vec<(SessionId, i64)>> {
        let rows = self.db().rows(VERSIONS, &[]).await?;
        rows.iter().map(|row| Ok((session_id(&row.text(0)?)?, row.int(1)?))).collect()
    }

    async fn find(&self, query: &SessionQuery) -> Result<Page<Session>> {
        list::find(self, query).await
    }

    async fn history(&self, id: SessionId) -> Result<Vec<SessionEvent>> {
        self.db().rows(HISTORY, &args![id.to_string()]).await?.iter().map(event).collect()
    }

    async fn unpublished(&self, limit: u32) -> Result<Vec<SessionEvent>> {
        self.db().rows(UNPUBLISHED, &args![i64::from(limit)]).await?.iter().map(event).collect()
    }

    async fn mark_published(&self, seqs: &[i64]) -> Result<()> {
        if !seqs.is_empty() {
            self.db().execute(MARK_PUBLISHED, &args![seqs]).await?;
        }
        Ok(())
    }

    async fn purge(&self, before: Timestamp, limit: u32) -> Result<u64> {
        let mut tx = self.db().begin().await?;
        let ended = tx.rows(ENDED, &args![micros(before), i64::from(limit)]).await?;
        let ids = args![ended.iter().map(|row| row.text(0)).collect::<Result<Vec<_>>>()?];
        let mut count = 0;
        for statement in REMOVE {
            count = tx.execute(statement, &ids).await?; // the sessions come last
        }
        tx.commit().await?;
        Ok(count)
    }
}

fn session_id(id: &str) -> Result<SessionId> {
    id.parse().map_err(|error: Error| corrupt("session", id).source(error))
}

/// From the columns id and document.
fn session(row: &Row) -> Result<Session> {
    from_doc(&row.text(1)?, "session", &row.text(0)?)
}

/// From the columns number and document.
fn event(row: &Row) -> Result<SessionEvent> {
    let seq = row.int(0)?;
    let mut event: SessionEvent = from_doc(&row.text(1)?, "session event", &seq.to_string())?;
    event.seq = seq;
    Ok(event)
}

/// Gives the events of commits their numbers, in order.
fn number_events<'a>(commits: impl Iterator<Item = &'a mut Committed>, seqs: Vec<i64>) {
    let events = commits.flat_map(|committed| &mut committed.events);
    events.zip(seqs).for_each(|(event, seq)| event.seq = seq);
}
