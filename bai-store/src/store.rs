//! Opening a store.

#[cfg(feature = "sqlite")]
use std::path::Path;
use std::sync::Arc;

use bai_core::clock::{Clock, SystemClock};
use bai_core::error::Result;
use bai_core::secret::Secret;

#[cfg(feature = "sqlite")]
use parking_lot::Mutex;

use crate::cipher::Cipher;
use crate::config::Watchers;
use crate::db::Db;
#[cfg(feature = "sqlite")]
use crate::lock::FileLock;
use crate::migrate::migrate;

/// What a store needs besides a database.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Key that secret keys are encrypted with. Keep it apart from the database, readable by its owner only; without it
    /// the keypairs are lost.
    pub key: Secret<[u8; 32]>,
    /// Clock that dates events.
    pub clock: Arc<dyn Clock>,
    /// Most connections to PostgreSQL at a time; 10 by default.
    pub max_connections: u32,
}

impl Options {
    /// The defaults, with this key.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key: Secret::new(key), clock: Arc::new(SystemClock), max_connections: 10 }
    }
}

/// The rows of bai in a database. Clones share its connections.
///
/// All ports are implemented: [`SessionStore`](bai_core::port::SessionStore),
/// [`IdentityStore`](bai_core::port::IdentityStore), [`AgentStore`](bai_core::port::AgentStore),
/// [`ImageStore`](bai_core::port::ImageStore), [`LogStore`](bai_core::port::LogStore) and, for clusters without etcd,
/// [`ConfigStore`](bai_core::port::ConfigStore).
#[derive(Debug, Clone)]
pub struct Store(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) db: Db,
    pub(crate) cipher: Cipher,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) watchers: Watchers,
    /// No other process writes to the database.
    pub(crate) exclusive: bool,
    #[cfg(feature = "sqlite")]
    lock: Mutex<Option<FileLock>>,
}

impl Store {
    /// Opens the SQLite file at `path`, which is created when it does not exist, and brings its schema forward. A crash
    /// at any moment leaves every committed transaction and no part of another.
    ///
    /// # Errors
    /// `Unavailable` when the file cannot be opened, is in use by another process (context `pid`), or was written by a
    /// newer version.
    #[cfg(feature = "sqlite")]
    pub async fn open_sqlite(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let path = path.as_ref();
        let lock = FileLock::acquire(path)?;
        let db = Db::open_sqlite(path).await?;
        Self::open(db, options, true, Some(lock)).await
    }

    /// A SQLite database that is gone with the last clone of the store.
    ///
    /// # Errors
    /// `Unavailable` when there is no memory for it.
    #[cfg(feature = "sqlite")]
    pub async fn sqlite_in_memory(options: Options) -> Result<Self> {
        Self::open(Db::sqlite_in_memory()?, options, true, None).await
    }

    /// Connects to the PostgreSQL database at `url` (`postgres://user:password@host:port/database`), and brings its schema
    /// forward.
    ///
    /// # Errors
    /// `Invalid` for a malformed URL, `Unavailable` when the server cannot be reached or the schema was written by a newer
    /// version.
    #[cfg(feature = "postgres")]
    pub async fn connect_postgres(url: &str, options: Options) -> Result<Self> {
        let db = Db::connect_postgres(url, options.max_connections).await?;
        #[cfg(feature = "sqlite")]
        return Self::open(db, options, false, None).await;
        #[cfg(not(feature = "sqlite"))]
        Self::open(db, options, false).await
    }

    async fn open(
        db: Db,
        options: Options,
        exclusive: bool,
        #[cfg(feature = "sqlite")] lock: Option<FileLock>,
    ) -> Result<Self> {
        migrate(&db, &*options.clock).await?;
        Ok(Self(Arc::new(Inner {
            db,
            cipher: Cipher::new(options.key.reveal()),
            clock: options.clock,
            watchers: Watchers::new(),
            exclusive,
            #[cfg(feature = "sqlite")]
            lock: Mutex::new(lock),
        })))
    }

    /// Closes all connections, after what they are doing, and lets another store open the database. Calls after that are
    /// `Unavailable`.
    pub async fn close(&self) {
        self.0.db.close().await;
        #[cfg(feature = "sqlite")]
        drop(self.0.lock.lock().take());
    }

    pub(crate) fn db(&self) -> &Db {
        &self.0.db
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Sql;

    /// Every fixed statement of the crate.
    fn statements() -> impl Iterator<Item = (&'static str, Sql)> {
        let all = [
            crate::agents::STATEMENTS,
            crate::config::STATEMENTS,
            crate::dialect::STATEMENTS,
            crate::identities::STATEMENTS,
            crate::images::STATEMENTS,
            crate::logs::STATEMENTS,
            crate::migrate::STATEMENTS,
            crate::sessions::STATEMENTS,
            crate::sessions::COMMIT_STATEMENTS,
            crate::sessions::INSERT_STATEMENTS,
            crate::sessions::ROW_STATEMENTS,
        ];
        all.into_iter().flatten().copied()
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn sqlite_understands_every_statement() {
        let store = Store::sqlite_in_memory(Options::new([0; 32])).await.unwrap();
        let mut tx = store.db().begin().await.unwrap();
        for (name, sql) in statements() {
            tx.prepare(sql).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
    }

    #[cfg(feature = "postgres")]
    #[tokio::test]
    async fn postgres_understands_every_statement() {
        let Some(url) = bai_testkit::service_url("BAI_TEST_POSTGRES_URL") else { return };
        let schema = format!("bai_test_{}", uuid::Uuid::new_v4().simple());
        let store = Db::connect_postgres(&url, 1).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        tx.script(&format!("CREATE SCHEMA {schema}; SET LOCAL search_path TO {schema}")).await.unwrap();
        for step in crate::migrate::STEPS {
            tx.script(&store.dialect().ddl(step)).await.unwrap();
        }
        let (_, create) = crate::migrate::STATEMENTS[0];
        tx.execute(create, &[]).await.unwrap();
        for (name, sql) in statements() {
            tx.prepare(sql).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
    }
}
