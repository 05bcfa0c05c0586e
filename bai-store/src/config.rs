//! Shared configuration for clusters without etcd.
//!
//! Every write counts one revision up and leaves a row among the last changes. Watchers read on from the revision they have
//! seen: woken by writes of this process, and once in a while for those of others.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use bai_core::error::{Error, Result, code};
use bai_core::port::ConfigStore;
use bai_core::port::config::{ConfigChange, ConfigEntry};
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;

use crate::db::{Arg, Row, Tx, args};
use crate::dialect::statements;
use crate::store::Store;

/// How many changes are kept for watchers.
const KEPT_CHANGES: i64 = 1000;

/// How often to look for writes of other processes.
const POLL: Duration = Duration::from_millis(500);

statements! {
    NEXT_REVISION = "UPDATE config_revision SET revision = revision + 1 WHERE id = 1 RETURNING revision";
    REVISION = "SELECT revision FROM config_revision WHERE id = 1";
    LOCK_REVISION = "UPDATE config_revision SET revision = revision WHERE id = 1";
    GET = "SELECT key, value, revision FROM config WHERE key = $1";
    GET_PREFIX = "SELECT key, value, revision FROM config WHERE substr(key, 1, length($1)) = $1 ORDER BY key";
    PUT = "INSERT INTO config (key, value, revision) VALUES ($1, $2, $3)
           ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision";
    DELETE = "DELETE FROM config WHERE key = $1";
    RECORD = "INSERT INTO config_changes (revision, key, value) VALUES ($1, $2, $3)";
    PRUNE = "DELETE FROM config_changes WHERE revision <= $1";
    CHANGES = "SELECT key, value, revision FROM config_changes WHERE revision > $1 ORDER BY revision";
}

/// Tells the watchers of this process that something was written.
#[derive(Debug)]
pub(crate) struct Watchers(watch::Sender<()>);

impl Watchers {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(()))
    }
}

#[async_trait]
impl ConfigStore for Store {
    async fn get(&self, key: &str) -> Result<Option<ConfigEntry>> {
        self.db().row(GET, &args![key]).await?.as_ref().map(entry).transpose()
    }

    async fn get_prefix(&self, prefix: &str) -> Result<Vec<ConfigEntry>> {
        self.db().rows(GET_PREFIX, &args![prefix]).await?.iter().map(entry).collect()
    }

    async fn put(&self, key: &str, value: &str) -> Result<i64> {
        let mut tx = self.db().begin().await?;
        let revision = write(&mut tx, key, value).await?;
        self.publish(tx).await?;
        Ok(revision)
    }

    async fn compare_and_put(&self, key: &str, expected: i64, value: &str) -> Result<i64> {
        let mut tx = self.db().begin().await?;
        tx.execute(LOCK_REVISION, &[]).await?; // whoever writes waits here
        let found = tx.row(GET, &args![key]).await?.map_or(Ok(0), |row| row.int(2))?;
        if found != expected {
            return Err(Error::of(code::CONFLICT, "the key has been changed by someone else")
                .with("key", key)
                .with("expected", expected)
                .with("found", found));
        }
        let revision = write(&mut tx, key, value).await?;
        self.publish(tx).await?;
        Ok(revision)
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        let mut tx = self.db().begin().await?;
        tx.execute(LOCK_REVISION, &[]).await?;
        let existed = remove(&mut tx, key).await?;
        self.publish(tx).await?;
        Ok(existed)
    }

    async fn delete_prefix(&self, prefix: &str) -> Result<u64> {
        let mut tx = self.db().begin().await?;
        tx.execute(LOCK_REVISION, &[]).await?;
        let mut count = 0;
        for row in tx.rows(GET_PREFIX, &args![prefix]).await? {
            count += u64::from(remove(&mut tx, &row.text(0)?).await?);
        }
        self.publish(tx).await?;
        Ok(count)
    }

    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, Result<ConfigChange>>> {
        let written = self.0.watchers.0.subscribe();
        let seen = self.db().row(REVISION, &[]).await?.map_or(Ok(0), |row| row.int(0))?;
        let watcher =
            Watcher { store: self.clone(), prefix: prefix.to_owned(), written, seen, ready: VecDeque::new() };
        Ok(stream::unfold(watcher, |mut watcher| async move {
            let item = watcher.next().await;
            Some((item, watcher))
        })
        .boxed())
    }
}

impl Store {
    async fn publish(&self, tx: Tx) -> Result<()> {
        tx.commit().await?;
        self.0.watchers.0.send_replace(());
        Ok(())
    }
}

async fn write(tx: &mut Tx, key: &str, value: &str) -> Result<i64> {
    let revision = record(tx, key, Some(value)).await?;
    tx.execute(PUT, &args![key, value, revision]).await?;
    Ok(revision)
}

async fn remove(tx: &mut Tx, key: &str) -> Result<bool> {
    let existed = tx.execute(DELETE, &args![key]).await? > 0;
    if existed {
        record(tx, key, None).await?;
    }
    Ok(existed)
}

/// Counts the revision up, and keeps the change for watchers.
async fn record(tx: &mut Tx, key: &str, value: Option<&str>) -> Result<i64> {
    let row = tx.row(NEXT_REVISION, &[]).await?;
    let row = row.ok_or_else(|| crate::convert::corrupt("config revision", key))?;
    let revision = row.int(0)?;
    let value = Arg::OptText(value.map(Into::into));
    tx.execute(RECORD, &[Arg::from(revision), Arg::from(key), value]).await?;
    tx.execute(PRUNE, &args![revision - KEPT_CHANGES]).await?;
    Ok(revision)
}

fn entry(row: &Row) -> Result<ConfigEntry> {
    Ok(ConfigEntry { key: row.text(0)?, value: row.text(1)?, revision: row.int(2)? })
}

struct Watcher {
    store: Store,
    prefix: String,
    written: watch::Receiver<()>,
    /// Last revision that has been read.
    seen: i64,
    ready: VecDeque<Result<ConfigChange>>,
}

impl Watcher {
    async fn next(&mut self) -> Result<ConfigChange> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return change;
            }
            self.written.mark_unchanged();
            if let Err(error) = self.read_on().await {
                tokio::time::sleep(POLL).await; // a failing database is not asked without pause
                return Err(error);
            }
            if self.ready.is_empty() {
                self.wait().await;
            }
        }
    }

    async fn read_on(&mut self) -> Result<()> {
        for row in self.store.db().rows(CHANGES, &args![self.seen]).await? {
            let (key, value, revision) = (row.text(0)?, row.opt_text(1)?, row.int(2)?);
            if revision > self.seen + 1 {
                let lost = revision - self.seen - 1;
                self.ready
                    .push_back(Err(Error::of(code::EVENTS_LAGGED, "changes were lost").with("lost", lost)));
            }
            self.seen = revision;
            if key.starts_with(&self.prefix) {
                self.ready.push_back(Ok(match value {
                    Some(value) => ConfigChange::Put(ConfigEntry { key, value, revision }),
                    None => ConfigChange::Delete(key),
                }));
            }
        }
        Ok(())
    }

    /// Until this process has written, or others may have.
    async fn wait(&mut self) {
        let written = self.written.changed();
        if self.store.0.exclusive {
            let _ = written.await; // the sender lives in `store`
        } else {
            let _ = tokio::time::timeout(POLL, written).await;
        }
    }
}
