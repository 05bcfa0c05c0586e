//! SQLite: one connection that writes, several that read.

use std::path::Path;
use std::time::Duration;

use bai_core::error::Result;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::{Db, failed};

/// Connections for reading beside the writing one.
const READERS: u32 = 4;

/// Pages of write-ahead log after which its content is moved into the file: 16 MiB, so that a busy store rarely pauses.
const CHECKPOINT_PAGES: &str = "4096";

/// KiB of pages that the writing connection keeps in memory, with a minus sign as SQLite wants it: 16 MiB.
const CACHE: &str = "-16384";

pub(crate) struct Pools {
    /// A single connection: writers queue here instead of finding the database busy.
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
}

impl Db {
    /// Opens, or creates, a database file. Its transactions survive the end of the process at any moment: the write-ahead
    /// log is in the hands of the operating system when a commit returns.
    pub(crate) async fn open_sqlite(path: &Path) -> Result<Self> {
        let options = options()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .pragma("cache_size", CACHE);
        let opened = |error| failed(error).with("path", path.display());
        let writer = pool(1).connect_with(options).await.map_err(opened)?;
        let readers = pool(READERS).connect_with(self::options().filename(path).pragma("query_only", "ON"));
        Ok(Self::Sqlite(Pools { writer, readers: readers.await.map_err(opened)? }))
    }

    /// A database that is gone with the last connection.
    pub(crate) async fn sqlite_in_memory() -> Result<Self> {
        let writer = pool(1).connect_with(options().in_memory(true)).await.map_err(failed)?;
        Ok(Self::Sqlite(Pools { readers: writer.clone(), writer }))
    }
}

fn options() -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .busy_timeout(Duration::from_secs(10))
        .foreign_keys(true)
        .pragma("temp_store", "MEMORY") // a statement that fails half-way is undone without a file
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .test_before_acquire(false) // it is a file: there is nothing that could have hung up
        .idle_timeout(None)
        .max_lifetime(None)
}
