//! Shared configuration: a tree of keys like `config/idle/enabled`.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use std::fmt;

use crate::error::Result;

/// A key with its value and revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Full key.
    pub key: String,
    /// Value.
    pub value: String,
    /// Changes with every write of the key; 0 means "does not exist".
    pub revision: i64,
}

/// A change seen by a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    /// The key was written.
    Put(ConfigEntry),
    /// The key was deleted.
    Delete(String),
}

/// A tree of configuration keys. All implementations pass `bai_testkit::config_store`.
#[async_trait]
pub trait ConfigStore: fmt::Debug + Send + Sync + 'static {
    /// The entry of `key`.
    ///
    /// # Errors
    /// `Unavailable` when the back end cannot be reached (so for all methods here).
    async fn get(&self, key: &str) -> Result<Option<ConfigEntry>>;
    /// All entries whose key starts with `prefix`, ordered by key.
    async fn get_prefix(&self, prefix: &str) -> Result<Vec<ConfigEntry>>;
    /// Writes `key` and returns its new revision.
    async fn put(&self, key: &str, value: &str) -> Result<i64>;
    /// Writes `key` if its revision still is `expected` (0: if it does not exist). `Conflict` otherwise, and nothing changes.
    async fn compare_and_put(&self, key: &str, expected: i64, value: &str) -> Result<i64>;
    /// Deletes `key`; whether it existed.
    async fn delete(&self, key: &str) -> Result<bool>;
    /// Deletes all keys that start with `prefix` and returns how many there were.
    async fn delete_prefix(&self, prefix: &str) -> Result<u64>;
    /// Changes of keys that start with `prefix`, from the moment the call returns.
    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, Result<ConfigChange>>>;
}
