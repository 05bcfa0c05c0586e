//! SQLite: one connection that writes, several that read.
//!
//! The writer works on the thread of its caller. A statement takes some microseconds, since the log is only handed to the
//! operating system; waking another thread and being woken by it takes longer. What may wait for the disk or go through many rows,
//! reads and checkpoints, has threads of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bai_core::error::{Error, Result, code};
use parking_lot::Mutex as Lock;
use rusqlite::hooks::Wal;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME, ErrorCode, OpenFlags, Statement, ToSql, ffi};
use serde::Serialize;
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::Instant;

use super::{Arg, Outcome, broken_row};

/// Connections for reading beside the writing one.
const READERS: u32 = 4;
/// Pages of write-ahead log after which its content is moved into the file: 32 MiB, so that a busy store rarely pauses.
const LOG_PAGES: i32 = 8192;
/// KiB of pages that the writing connection keeps in memory, with a minus sign as SQLite wants it: 16 MiB.
const CACHE: i32 = -16384;
/// Statements that a connection keeps prepared.
const STATEMENTS: usize = 64;
/// How long a transaction keeps its thread at a time.
const TURN: Duration = Duration::from_millis(5);
/// How long a write waits for another program that writes to the file.
const PATIENCE: Duration = Duration::from_secs(10);
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// The cells of a row.
pub(crate) type Cells = Vec<Value>;

/// A database.
pub(crate) struct Sqlite {
    writer: Writer,
    /// `None` for a database in memory: it has one connection.
    readers: Option<Arc<Readers>>,
}

#[derive(Clone)]
struct Writer {
    /// Writers queue here instead of finding the database busy; `None` when it is closed.
    connection: Arc<Mutex<Option<Connection>>>,
    /// Pages in the log after the last commit.
    log: Arc<AtomicI32>,
    /// Held while the log is moved into the file.
    move_log: Arc<Mutex<()>>,
}

struct Readers {
    path: PathBuf,
    turns: Arc<Semaphore>,
    idle: Lock<Vec<Connection>>,
}

impl Sqlite {
    /// Opens, or creates, a database file. Its transactions survive the end of the process at any moment: the write-ahead
    /// log is in the hands of the operating system when a commit returns.
    pub(super) async fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let opened = blocking(move || {
            let writer = Writer::open(&path).map_err(|error| failed(error).with("path", path.display()))?;
            let turns = Arc::new(Semaphore::new(READERS as usize));
            Ok(Self { writer, readers: Some(Arc::new(Readers { path, turns, idle: Lock::default() })) })
        });
        opened.await?
    }

    /// A database that is gone when it is closed.
    pub(super) fn in_memory() -> Result<Self> {
        let connection = Connection::open_in_memory().and_then(set_up).map_err(failed)?;
        Ok(Self { writer: Writer::new(connection, Arc::default()), readers: None })
    }

    pub(super) async fn begin(&self) -> Result<SqliteTx> {
        let connection = self.writer.turn().await?;
        let mut tx = SqliteTx { connection, writer: self.writer.clone(), open: false, turn: Instant::now() };
        let deadline = Instant::now() + PATIENCE;
        while !tx.begin(Instant::now() >= deadline)? {
            tokio::time::sleep(BUSY_PAUSE).await;
        }
        Ok(tx)
    }

    /// A statement in a transaction of its own.
    pub(super) async fn execute(&self, sql: &str, args: &[Arg<'_>]) -> Result<Outcome> {
        let mut tx = self.begin().await?;
        let outcome = tx.execute(sql, args).await?;
        tx.commit().await?;
        Ok(outcome)
    }

    pub(super) async fn select(&self, sql: &str, args: &[Arg<'_>], keep: bool) -> Result<Vec<Cells>> {
        let Some(readers) = &self.readers else {
            let writer = self.writer.turn().await?;
            return rows(writer.as_ref().ok_or_else(closed)?, sql, args, keep).map_err(failed);
        };
        let turn = readers.turn(1).await?;
        let (readers, sql) = (Arc::clone(readers), sql.to_owned());
        let args: Vec<_> = args.iter().map(Arg::to_static).collect();
        blocking(move || readers.select(&sql, &args, keep, turn)).await?.map_err(failed)
    }

    /// Closes all connections, after what they are doing.
    pub(super) async fn close(&self) {
        let _moved = self.writer.move_log.lock().await;
        if let Some(readers) = &self.readers
            && let Ok(_all) = readers.turn(READERS).await
        {
            readers.turns.close();
            readers.idle.lock().clear();
        }
        let writer = self.writer.connection.lock().await.take();
        // The last connection moves the log into the file.
        if let Err(error) = blocking(move || drop(writer)).await {
            tracing::warn!(%error, "the database was not closed in order");
        }
    }
}

impl Writer {
    fn open(path: &Path) -> rusqlite::Result<Self> {
        let mut connection = set_up(Connection::open(path)?)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "cache_size", CACHE)?;
        let log = Arc::<AtomicI32>::default();
        let noted = Arc::clone(&log);
        // Instead of a checkpoint within the commit.
        connection.wal_hook(Some(move |_: &mut Wal, pages| {
            noted.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self::new(connection, log))
    }

    fn new(connection: Connection, log: Arc<AtomicI32>) -> Self {
        Self { connection: Arc::new(Mutex::new(Some(connection))), log, move_log: Arc::default() }
    }

    /// Moves the log into the file: most of it while others write, and what they have added meanwhile before the next one
    /// writes, who then begins the log anew.
    fn move_log(&self, path: &Path, _turn: OwnedMutexGuard<()>) {
        let apart = Connection::open(path).and_then(|connection| {
            connection.pragma_query(None, "schema_version", |_| Ok(()))?; // it finds out that there is a log
            checkpoint(&connection)
        });
        let rest = self.connection.blocking_lock().as_ref().map_or(Ok(()), checkpoint);
        if let Err(error) = apart.and(rest) {
            tracing::warn!(%error, "the log of the database stays longer");
        }
    }

    async fn turn(&self) -> Result<OwnedMutexGuard<Option<Connection>>> {
        let connection = Arc::clone(&self.connection).lock_owned().await;
        if connection.is_some() { Ok(connection) } else { Err(closed()) }
    }
}

impl Readers {
    async fn turn(&self, turns: u32) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.turns).acquire_many_owned(turns).await.map_err(|_| closed())
    }

    fn select(
        &self,
        sql: &str,
        args: &[Arg<'_>],
        keep: bool,
        turn: OwnedSemaphorePermit,
    ) -> rusqlite::Result<Vec<Cells>> {
        let idle = self.idle.lock().pop();
        let connection = idle.map_or_else(|| self.connect(), Ok)?;
        let rows = rows(&connection, sql, args, keep);
        self.idle.lock().push(connection);
        drop(turn);
        rows
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = set_up(Connection::open_with_flags(&self.path, flags)?)?;
        connection.busy_timeout(PATIENCE)?;
        Ok(connection)
    }
}

/// What every connection is told.
fn set_up(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(Duration::ZERO)?; // whoever must wait does so without holding up a thread
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?; // a statement that fails half-way is undone without a file
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// A transaction that writes.
pub(crate) struct SqliteTx {
    connection: OwnedMutexGuard<Option<Connection>>,
    writer: Writer,
    open: bool,
    /// When it last got the thread.
    turn: Instant,
}

impl SqliteTx {
    fn connection(&self) -> Result<&Connection> {
        self.connection.as_ref().ok_or_else(closed)
    }

    /// Whether it has begun: another program may be writing, which counts as a failure only after the `last` attempt.
    fn begin(&mut self, last: bool) -> Result<bool> {
        match run(self.connection()?, "BEGIN IMMEDIATE", &[]) {
            Ok(_) => self.open = true,
            Err(error) if !last && error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(self.open)
    }

    /// Lets other tasks have the thread now and then. Rarely: whoever waits to write waits longer for it.
    async fn give_way(&mut self) {
        if self.turn.elapsed() >= TURN {
            yield_now().await;
            self.turn = Instant::now();
        }
    }

    pub(super) async fn execute(&mut self, sql: &str, args: &[Arg<'_>]) -> Result<Outcome> {
        self.give_way().await;
        match run(self.connection()?, sql, args) {
            Ok(rows) => Ok(Outcome::Done(rows)),
            Err(error) => match error.sqlite_error().map(|error| error.extended_code) {
                Some(ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY) => {
                    Ok(Outcome::Duplicate)
                }
                Some(ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => Ok(Outcome::Dangling),
                _ => Err(failed(error)),
            },
        }
    }

    pub(super) async fn rows(&mut self, sql: &str, args: &[Arg<'_>]) -> Result<Vec<Cells>> {
        self.give_way().await;
        rows(self.connection()?, sql, args, true).map_err(failed)
    }

    pub(super) async fn script(&mut self, text: &str) -> Result<()> {
        self.give_way().await;
        self.connection()?.execute_batch(text).map_err(failed)
    }

    pub(super) async fn commit(mut self) -> Result<()> {
        self.give_way().await;
        run(self.connection()?, "COMMIT", &[]).map_err(failed)?;
        self.open = false;
        if self.writer.log.load(Ordering::Relaxed) >= LOG_PAGES
            && let Ok(turn) = Arc::clone(&self.writer.move_log).try_lock_owned()
            && let Some(path) = self.connection()?.path().map(PathBuf::from)
        {
            let writer = self.writer.clone();
            drop(spawn_blocking(move || writer.move_log(&path, turn)));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn prepare(&self, sql: &str) -> Result<()> {
        self.connection()?.prepare(sql).map(drop).map_err(failed)
    }
}

impl Drop for SqliteTx {
    fn drop(&mut self) {
        if self.open
            && let Some(connection) = &*self.connection
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction was not taken back");
        }
    }
}

/// Moves what nobody reads any more from the log into the file.
fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE).map(drop)
}

fn run(connection: &Connection, sql: &str, args: &[Arg<'_>]) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(sql)?;
    bind(&mut statement, args)?;
    statement.raw_execute().map(|rows| rows as u64)
}

fn rows(connection: &Connection, sql: &str, args: &[Arg<'_>], keep: bool) -> rusqlite::Result<Vec<Cells>> {
    if keep {
        fetch(&mut *connection.prepare_cached(sql)?, args)
    } else {
        fetch(&mut connection.prepare(sql)?, args)
    }
}

fn fetch(statement: &mut Statement<'_>, args: &[Arg<'_>]) -> rusqlite::Result<Vec<Cells>> {
    bind(statement, args)?;
    let columns = statement.column_count();
    let mut cursor = statement.raw_query();
    let mut rows = Vec::new();
    while let Some(row) = cursor.next()? {
        rows.push((0..columns).map(|column| row.get(column)).collect::<rusqlite::Result<_>>()?);
    }
    Ok(rows)
}

/// Gives the parameters `$1`, `$2`, … their values. To SQLite these are names, in the order in which they first appear.
fn bind(statement: &mut Statement<'_>, args: &[Arg<'_>]) -> rusqlite::Result<()> {
    for place in 1..=statement.parameter_count() {
        let number = statement.parameter_name(place).and_then(|name| name.get(1..)?.parse::<usize>().ok());
        let arg = args.get(number.unwrap_or(place).wrapping_sub(1));
        let missing = rusqlite::Error::InvalidParameterCount(args.len(), statement.parameter_count());
        statement.raw_bind_parameter(place, arg.ok_or(missing)?)?;
    }
    Ok(())
}

impl ToSql for Arg<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
            Self::OptText(value) => {
                value.as_deref().map_or(ValueRef::Null, |value| ValueRef::Text(value.as_bytes()))
            }
            Self::Int(value) => ValueRef::Integer(*value),
            Self::OptInt(value) => value.map_or(ValueRef::Null, ValueRef::Integer),
            Self::Bool(value) => ValueRef::Integer(i64::from(*value)),
            Self::Bytes(value) => ValueRef::Blob(value),
            Self::Texts(list) => return json(list),
            Self::Ints(list) => return json(list),
            #[cfg(feature = "postgres")]
            Self::Bools(list) => return json(list),
        }))
    }
}

fn json(list: &impl Serialize) -> rusqlite::Result<ToSqlOutput<'static>> {
    let json = serde_json::to_string(list);
    json.map(Into::into).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

pub(super) fn text(cell: Option<&Value>) -> Result<String> {
    opt_text(cell)?.ok_or_else(broken_row)
}

pub(super) fn opt_text(cell: Option<&Value>) -> Result<Option<String>> {
    match cell {
        Some(Value::Text(text)) => Ok(Some(text.clone())),
        Some(Value::Null) => Ok(None),
        _ => Err(broken_row()),
    }
}

pub(super) fn int(cell: Option<&Value>) -> Result<i64> {
    opt_int(cell)?.ok_or_else(broken_row)
}

pub(super) fn opt_int(cell: Option<&Value>) -> Result<Option<i64>> {
    match cell {
        Some(Value::Integer(int)) => Ok(Some(*int)),
        Some(Value::Null) => Ok(None),
        _ => Err(broken_row()),
    }
}

pub(super) fn bool(cell: Option<&Value>) -> Result<bool> {
    int(cell).map(|int| int != 0)
}

pub(super) fn bytes(cell: Option<&Value>) -> Result<Vec<u8>> {
    if let Some(Value::Blob(bytes)) = cell { Ok(bytes.clone()) } else { Err(broken_row()) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let ended = |error| Error::of(code::STORE_FAILED, "the database was interrupted").source(error);
    spawn_blocking(work).await.map_err(ended)
}

fn closed() -> Error {
    Error::of(code::STORE_FAILED, "the database is closed")
}

/// Hides the driver's error behind ours.
fn failed(error: rusqlite::Error) -> Error {
    Error::of(code::STORE_FAILED, "the database failed").source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::args;

    const CREATE: &str = "CREATE TABLE pages (id INTEGER PRIMARY KEY, content TEXT NOT NULL)";
    const INSERT: &str = "INSERT INTO pages (content) VALUES ($1)";
    const COUNT: &str = "SELECT count(*) FROM pages";

    async fn open() -> (Sqlite, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let db = Sqlite::open(&directory.path().join("test.db")).await.unwrap();
        db.execute(CREATE, &[]).await.unwrap();
        (db, directory)
    }

    async fn count(db: &Sqlite) -> i64 {
        int(db.select(COUNT, &[], true).await.unwrap()[0].first()).unwrap()
    }

    #[tokio::test]
    async fn parameters_go_by_their_numbers_and_none_is_forgotten() {
        let db = Sqlite::in_memory().unwrap();
        let rows = db.select("SELECT $2, $1, $2", &args!["one", 2_i64], false).await.unwrap();
        assert_eq!(rows, [[Value::Integer(2), Value::Text("one".into()), Value::Integer(2)]]);
        assert!(db.select("SELECT $2", &args!["one"], false).await.is_err());
    }

    #[tokio::test]
    async fn what_is_not_committed_never_was() {
        let (db, _directory) = open().await;
        let mut tx = db.begin().await.unwrap();
        tx.execute(INSERT, &args!["lost"]).await.unwrap();
        drop(tx);
        assert_eq!(count(&db).await, 0);
    }

    #[tokio::test]
    async fn a_write_waits_for_another_program() {
        let (db, directory) = open().await;
        let other = Connection::open(directory.path().join("test.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let write = async { db.execute(INSERT, &args!["late"]).await.unwrap() };
        let end = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            other.execute_batch("COMMIT").unwrap();
        };
        let (outcome, ()) = tokio::join!(write, end);
        assert_eq!(outcome, Outcome::Done(1));
    }

    #[tokio::test]
    async fn the_log_does_not_grow_for_ever() {
        let (db, directory) = open().await;
        let page = "x".repeat(4000);
        let limit = u64::try_from(LOG_PAGES).unwrap() * 4096;
        for _ in 0..40 {
            let mut tx = db.begin().await.unwrap();
            for _ in 0..LOG_PAGES / 8 {
                tx.execute(INSERT, &args![&page]).await.unwrap();
            }
            tx.commit().await.unwrap();
            count(&db).await;
        }
        let log = std::fs::metadata(directory.path().join("test.db-wal")).unwrap().len();
        assert!((limit / 2..limit * 2).contains(&log), "{log} bytes, for {limit}");
        assert_eq!(count(&db).await, i64::from(LOG_PAGES / 8 * 40));
    }
}
