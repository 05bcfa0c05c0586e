//! The one place that talks to the drivers: statements go in with plain arguments, plain rows come out.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::borrow::Cow;
use std::fmt;
#[cfg(feature = "sqlite")]
use std::path::Path;

use bai_core::error::{Error, Result, code};

use crate::dialect::{Dialect, Sql};

/// An argument of a statement.
#[derive(Debug, Clone)]
pub(crate) enum Arg<'a> {
    Text(Cow<'a, str>),
    OptText(Option<Cow<'a, str>>),
    Int(i64),
    OptInt(Option<i64>),
    Bool(bool),
    Bytes(Cow<'a, [u8]>),
    /// A list in one argument: an array for PostgreSQL, JSON for SQLite.
    Texts(Vec<Option<Cow<'a, str>>>),
    Ints(Vec<Option<i64>>),
    #[cfg(feature = "postgres")]
    Bools(Vec<bool>),
}

impl Arg<'_> {
    /// The same, to be taken to another thread.
    #[cfg(feature = "sqlite")]
    fn to_static(&self) -> Arg<'static> {
        let owned = |text: &str| Cow::Owned(text.to_owned());
        match self {
            Self::Text(value) => Arg::Text(owned(value)),
            Self::OptText(value) => Arg::OptText(value.as_deref().map(owned)),
            Self::Int(value) => Arg::Int(*value),
            Self::OptInt(value) => Arg::OptInt(*value),
            Self::Bool(value) => Arg::Bool(*value),
            Self::Bytes(value) => Arg::Bytes(Cow::Owned(value.as_ref().to_owned())),
            Self::Texts(list) => Arg::Texts(list.iter().map(|text| text.as_deref().map(owned)).collect()),
            Self::Ints(list) => Arg::Ints(list.clone()),
            #[cfg(feature = "postgres")]
            Self::Bools(list) => Arg::Bools(list.clone()),
        }
    }
}

macro_rules! arg_from {
    ($($from:ty, $value:ident => $arg:expr;)*) => { $(
        impl<'a> From<$from> for Arg<'a> {
            fn from($value: $from) -> Self { $arg }
        }
    )* };
}

arg_from! {
    &'a str, value => Self::Text(Cow::Borrowed(value));
    &'a String, value => Self::Text(Cow::Borrowed(value));
    String, value => Self::Text(Cow::Owned(value));
    Cow<'a, str>, value => Self::Text(value);
    Option<&'a str>, value => Self::OptText(value.map(Cow::Borrowed));
    Option<String>, value => Self::OptText(value.map(Cow::Owned));
    i64, value => Self::Int(value);
    Option<i64>, value => Self::OptInt(value);
    bool, value => Self::Bool(value);
    &'a [u8], value => Self::Bytes(Cow::Borrowed(value));
    &'a Vec<u8>, value => Self::Bytes(Cow::Borrowed(value));
    Vec<String>, list => Self::Texts(list.into_iter().map(|text| Some(Cow::Owned(text))).collect());
    Vec<Cow<'a, str>>, list => Self::Texts(list.into_iter().map(Some).collect());
    &'a [i64], list => Self::Ints(list.iter().copied().map(Some).collect());
}

/// A type of column: SQLite is given a value of it at a time, PostgreSQL those of many rows.
pub(crate) trait Column {
    #[cfg(feature = "sqlite")]
    fn arg(&self) -> Arg<'_>;
    #[cfg(feature = "postgres")]
    fn list<'a>(column: impl Iterator<Item = &'a Self>) -> Arg<'a>
    where
        Self: 'a;
}

macro_rules! columns {
    ($($type:ty: $list:ident, $value:ident => $arg:expr, $item:expr;)*) => { $(
        impl Column for $type {
            #[cfg(feature = "sqlite")]
            fn arg(&self) -> Arg<'_> {
                let $value = self;
                $arg.into()
            }

            #[cfg(feature = "postgres")]
            fn list<'a>(column: impl Iterator<Item = &'a Self>) -> Arg<'a> {
                Arg::$list(column.map(|$value| $item).collect())
            }
        }
    )* };
}

columns! {
    String: Texts, value => value, Some(Cow::Borrowed(value.as_str()));
    &'static str: Texts, value => *value, Some(Cow::Borrowed(*value));
    Option<String>: Texts, value => value.as_deref(), value.as_deref().map(Cow::Borrowed);
    i64: Ints, value => *value, Some(*value);
    Option<i64>: Ints, value => *value, *value;
    bool: Bools, value => *value, *value;
}

/// Arguments for `$1`, `$2`, …
macro_rules! args {
    ($($value:expr),* $(,)?) => { [$($crate::db::Arg::from($value)),*] };
}
pub(crate) use args;

/// A row of a result, read by the number of the column from 0.
pub(crate) enum Row {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlite::Cells),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::postgres::PgRow),
}

/// Reads one type of column.
macro_rules! read {
    ($name:ident -> $type:ty) => {
        pub(crate) fn $name(&self, column: usize) -> Result<$type> {
            match self {
                #[cfg(feature = "sqlite")]
                Self::Sqlite(cells) => sqlite::$name(cells.get(column)),
                #[cfg(feature = "postgres")]
                Self::Postgres(row) => postgres::read(row, column),
            }
        }
    };
}

impl Row {
    read!(text -> String);
    read!(opt_text -> Option<String>);
    read!(int -> i64);
    read!(opt_int -> Option<i64>);
    read!(bool -> bool);
    read!(bytes -> Vec<u8>);
}

/// What came of a statement that may run into a constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// So many rows were affected.
    Done(u64),
    /// A unique value is taken. In PostgreSQL the transaction is over, unless there is a savepoint.
    Duplicate,
    /// A row that is referred to does not exist.
    Dangling,
}

/// Connections to a database.
pub(crate) enum Db {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlite::Sqlite),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgPool),
}

/// A transaction; dropping it takes everything back.
pub(crate) enum Tx {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlite::SqliteTx),
    #[cfg(feature = "postgres")]
    Postgres(postgres::PgTx),
    /// Of one statement that writes, which needs no other to begin or end it.
    #[cfg(feature = "postgres")]
    Single(sqlx::PgPool),
}

impl Db {
    /// Opens, or creates, a database file.
    #[cfg(feature = "sqlite")]
    pub(crate) async fn open_sqlite(path: &Path) -> Result<Self> {
        sqlite::Sqlite::open(path).await.map(Self::Sqlite)
    }

    /// A database that is gone when it is closed.
    #[cfg(feature = "sqlite")]
    pub(crate) fn sqlite_in_memory() -> Result<Self> {
        sqlite::Sqlite::in_memory().map(Self::Sqlite)
    }

    /// Connects to the database that `url` names.
    #[cfg(feature = "postgres")]
    pub(crate) async fn connect_postgres(url: &str, max_connections: u32) -> Result<Self> {
        postgres::connect(url, max_connections).await.map(Self::Postgres)
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => Dialect::Sqlite,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Begins a transaction that may write.
    pub(crate) async fn begin(&self) -> Result<Tx> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(db) => db.begin().await.map(Tx::Sqlite),
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => pool.begin().await.map(Tx::Postgres).map_err(postgres::failed),
        }
    }

    /// As [`Db::begin`], for one statement that writes; others may only read. Where a statement is a round trip, it saves two.
    #[cfg_attr(not(feature = "sqlite"), allow(clippy::unused_async, reason = "SQLite waits for its turn"))]
    pub(crate) async fn begin_single(&self) -> Result<Tx> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => self.begin().await,
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => Ok(Tx::Single(pool.clone())),
        }
    }

    /// Runs a statement that changes rows, in a transaction of its own; how many it changed.
    pub(crate) async fn execute(&self, sql: Sql, args: &[Arg<'_>]) -> Result<u64> {
        self.try_execute(sql, args).await?.rows()
    }

    pub(crate) async fn try_execute(&self, sql: Sql, args: &[Arg<'_>]) -> Result<Outcome> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(db) => db.execute(sql.sqlite, args).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => postgres::execute(pool, sql.postgres, args).await,
        }
    }

    /// The rows of a statement that only reads.
    pub(crate) async fn rows(&self, sql: Sql, args: &[Arg<'_>]) -> Result<Vec<Row>> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(db) => db.select(sql.sqlite, args, true).await.map(sqlite_rows),
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => postgres::rows(pool, sql.postgres, args).await.map(postgres_rows),
        }
    }

    /// The only row of a statement that only reads, if there is one.
    pub(crate) async fn row(&self, sql: Sql, args: &[Arg<'_>]) -> Result<Option<Row>> {
        Ok(self.rows(sql, args).await?.pop())
    }

    /// The rows of a statement put together at run time.
    pub(crate) async fn rows_of_text(&self, sql: &str, args: &[Arg<'_>]) -> Result<Vec<Row>> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(db) => db.select(sql, args, false).await.map(sqlite_rows),
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => postgres::rows_of_text(pool, sql, args).await.map(postgres_rows),
        }
    }

    /// Closes all connections; a later call fails.
    pub(crate) async fn close(&self) {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(db) => db.close().await,
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Tx {
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => Dialect::Sqlite,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) | Self::Single(_) => Dialect::Postgres,
        }
    }

    /// Runs a statement that changes rows; how many it changed.
    pub(crate) async fn execute(&mut self, sql: Sql, args: &[Arg<'_>]) -> Result<u64> {
        self.try_execute(sql, args).await?.rows()
    }

    pub(crate) async fn try_execute(&mut self, sql: Sql, args: &[Arg<'_>]) -> Result<Outcome> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(tx) => tx.execute(sql.sqlite, args).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(tx) => postgres::execute(&mut **tx, sql.postgres, args).await,
            #[cfg(feature = "postgres")]
            Self::Single(pool) => postgres::execute(&*pool, sql.postgres, args).await,
        }
    }

    /// The rows of a statement, be it one that changes some.
    pub(crate) async fn rows(&mut self, sql: Sql, args: &[Arg<'_>]) -> Result<Vec<Row>> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(tx) => tx.rows(sql.sqlite, args).await.map(sqlite_rows),
            #[cfg(feature = "postgres")]
            Self::Postgres(tx) => postgres::rows(&mut **tx, sql.postgres, args).await.map(postgres_rows),
            #[cfg(feature = "postgres")]
            Self::Single(pool) => postgres::rows(&*pool, sql.postgres, args).await.map(postgres_rows),
        }
    }

    /// The only row of a statement, if there is one.
    pub(crate) async fn row(&mut self, sql: Sql, args: &[Arg<'_>]) -> Result<Option<Row>> {
        Ok(self.rows(sql, args).await?.pop())
    }

    /// Runs the statements of a script.
    pub(crate) async fn script(&mut self, text: &str) -> Result<()> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(tx) => tx.script(text).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(tx) => postgres::script(&mut **tx, text).await,
            #[cfg(feature = "postgres")]
            Self::Single(pool) => postgres::script(&*pool, text).await,
        }
    }

    pub(crate) async fn commit(self) -> Result<()> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(tx) => tx.commit().await,
            #[cfg(feature = "postgres")]
            Self::Postgres(tx) => tx.commit().await.map_err(postgres::failed),
            #[cfg(feature = "postgres")]
            Self::Single(_) => Ok(()),
        }
    }
}

impl Outcome {
    /// How many rows were affected, by a statement that no constraint concerns.
    fn rows(self) -> Result<u64> {
        match self {
            Self::Done(rows) => Ok(rows),
            broken => Err(Error::of(code::STORE_CORRUPT, "a constraint of the database was broken")
                .with("outcome", format_args!("{broken:?}"))),
        }
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dialect())
    }
}

#[cfg(feature = "sqlite")]
fn sqlite_rows(rows: Vec<sqlite::Cells>) -> Vec<Row> {
    rows.into_iter().map(Row::Sqlite).collect()
}

#[cfg(feature = "postgres")]
fn postgres_rows(rows: Vec<sqlx::postgres::PgRow>) -> Vec<Row> {
    rows.into_iter().map(Row::Postgres).collect()
}

/// A row is not as it was written.
fn broken_row() -> Error {
    Error::of(code::STORE_CORRUPT, "a row of the database cannot be read")
}

#[cfg(test)]
mod prepare {
    use super::*;

    impl Tx {
        #[cfg_attr(not(feature = "postgres"), allow(clippy::unused_async, reason = "PostgreSQL is asked"))]
        pub(crate) async fn prepare(&mut self, sql: Sql) -> Result<()> {
            match self {
                #[cfg(feature = "sqlite")]
                Self::Sqlite(tx) => tx.prepare(sql.sqlite),
                #[cfg(feature = "postgres")]
                Self::Postgres(tx) => postgres::prepare(tx, sql.postgres).await,
                #[cfg(feature = "postgres")]
                Self::Single(_) => Ok(()),
            }
        }
    }
}
