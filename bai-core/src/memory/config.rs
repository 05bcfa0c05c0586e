//! Shared configuration of one process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::error::{Error, Result, code};
use crate::port::ConfigStore;
use crate::port::config::{ConfigChange, ConfigEntry};

/// How many changes a slow watcher may fall behind before it is told that it lost some.
const BACKLOG: usize = 4096;

/// A tree of configuration keys in memory. Clones share it; watches end with the last clone.
#[derive(Debug, Clone)]
pub struct MemoryConfig {
    tree: Arc<Mutex<Tree>>,
    changes: broadcast::Sender<ConfigChange>,
}

#[derive(Debug, Default)]
struct Tree {
    /// Counts all writes, so that no key ever gets an old revision again.
    revision: i64,
    entries: BTreeMap<String, ConfigEntry>,
}

impl MemoryConfig {
    /// An empty tree.
    pub fn new() -> Self {
        Self { tree: Arc::default(), changes: broadcast::Sender::new(BACKLOG) }
    }

    /// Writes under the lock, so that watchers see changes in the order of their revisions.
    fn write(&self, tree: &mut Tree, key: &str, value: &str) -> i64 {
        tree.revision += 1;
        let entry = ConfigEntry { key: key.to_owned(), value: value.to_owned(), revision: tree.revision };
        tree.entries.insert(key.to_owned(), entry.clone());
        self.tell(ConfigChange::Put(entry));
        tree.revision
    }

    fn remove(&self, tree: &mut Tree, key: &str) -> bool {
        let existed = tree.entries.remove(key).is_some();
        if existed {
            self.tell(ConfigChange::Delete(key.to_owned()));
        }
        existed
    }

    /// Fails only when nobody watches, which is fine.
    fn tell(&self, change: ConfigChange) {
        let _ = self.changes.send(change);
    }
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a ConfigEntry> {
        let from_prefix = self.entries.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from_prefix.take_while(move |(key, _)| key.starts_with(prefix)).map(|(_, entry)| entry)
    }
}

#[async_trait]
impl ConfigStore for MemoryConfig {
    async fn get(&self, key: &str) -> Result<Option<ConfigEntry>> {
        Ok(self.tree.lock().entries.get(key).cloned())
    }

    async fn get_prefix(&self, prefix: &str) -> Result<Vec<ConfigEntry>> {
        Ok(self.tree.lock().below(prefix).cloned().collect())
    }

    async fn put(&self, key: &str, value: &str) -> Result<i64> {
        Ok(self.write(&mut self.tree.lock(), key, value))
    }

    async fn compare_and_put(&self, key: &str, expected: i64, value: &str) -> Result<i64> {
        let mut tree = self.tree.lock();
        let found = tree.entries.get(key).map_or(0, |entry| entry.revision);
        if found != expected {
            return Err(Error::of(code::CONFLICT, "the key has been changed by someone else")
                .with("key", key)
                .with("expected", expected)
                .with("found", found));
        }
        Ok(self.write(&mut tree, key, value))
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        Ok(self.remove(&mut self.tree.lock(), key))
    }

    async fn delete_prefix(&self, prefix: &str) -> Result<u64> {
        let mut tree = self.tree.lock();
        let keys: Vec<_> = tree.below(prefix).map(|entry| entry.key.clone()).collect();
        Ok(keys.iter().map(|key| u64::from(self.remove(&mut tree, key))).sum())
    }

    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, Result<ConfigChange>>> {
        let prefix = prefix.to_owned();
        Ok(stream::unfold(self.changes.subscribe(), move |mut changes| {
            let prefix = prefix.clone();
            async move { Some((next_below(&mut changes, &prefix).await?, changes)) }
        })
        .boxed())
    }
}

async fn next_below(
    changes: &mut broadcast::Receiver<ConfigChange>,
    prefix: &str,
) -> Option<Result<ConfigChange>> {
    loop {
        match changes.recv().await {
            Ok(change) if key_of(&change).starts_with(prefix) => return Some(Ok(change)),
            Ok(_) => {}
            Err(RecvError::Lagged(lost)) => {
                return Some(Err(Error::of(code::EVENTS_LAGGED, "changes were lost").with("lost", lost)));
            }
            Err(RecvError::Closed) => return None,
        }
    }
}

fn key_of(change: &ConfigChange) -> &str {
    match change {
        ConfigChange::Put(entry) => &entry.key,
        ConfigChange::Delete(key) => key,
    }
}
