//! The one place that talks to the drivers: statements go in with plain arguments, plain rows come out.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::borrow::Cow;
use std::fmt;

use bai_core::error::{Error, ErrorKind, Result, code};

use crate::dialect::{Dialect, Sql};

/// An argument of a statement.
#[derive(Debug, Clone)]
pub(crate) enum Arg<'a> {
    Text(Cow<'a, str>),
    OptText(Option<Cow<'a, str>>),
    Int(i64),
    OptInt(Option<i64>),
    Bool(bool),
    Bytes(&'a [u8]),
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
    &'a [u8], value => Self::Bytes(value);
    &'a Vec<u8>, value => Self::Bytes(value);
}

/// Arguments for `$1`, `$2`, …
macro_rules! args {
    ($($value:expr),* $(,)?) => { [$($crate::db::Arg::from($value)),*] };
}
pub(crate) use args;

/// A row of a result, read by the number of the column from 0.
pub(crate) enum Row {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::sqlite::SqliteRow),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::postgres::PgRow),
}

macro_rules! read {
    ($row:expr, $column:expr) => {{
        let value = match $row {
            #[cfg(feature = "sqlite")]
            Row::Sqlite(row) => sqlx::Row::try_get(row, $column),
            #[cfg(feature = "postgres")]
            Row::Postgres(row) => sqlx::Row::try_get(row, $column),
        };
        value.map_err(failed)
    }};
}

impl Row {
    pub(crate) fn text(&self, column: usize) -> Result<String> {
        read!(self, column)
    }

    pub(crate) fn opt_text(&self, column: usize) -> Result<Option<String>> {
        read!(self, column)
    }

    pub(crate) fn int(&self, column: usize) -> Result<i64> {
        read!(self, column)
    }

    pub(crate) fn bool(&self, column: usize) -> Result<bool> {
        read!(self, column)
    }

    pub(crate) fn bytes(&self, column: usize) -> Result<Vec<u8>> {
        read!(self, column)
    }
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
    Sqlite(sqlite::Pools),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgPool),
}

/// A transaction; dropping it takes everything back.
pub(crate) enum Tx {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

/// A query with all its arguments.
macro_rules! bound {
    ($sql:expr, $args:expr) => {
        $args.iter().fold(sqlx::query($sql), |query, arg| match arg {
            Arg::Text(value) => query.bind(&**value),
            Arg::OptText(value) => query.bind(value.as_deref()),
            Arg::Int(value) => query.bind(*value),
            Arg::OptInt(value) => query.bind(*value),
            Arg::Bool(value) => query.bind(*value),
            Arg::Bytes(value) => query.bind(*value),
        })
    };
}

impl Db {
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
        let tx = match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pools) => pools.writer.begin_with("BEGIN IMMEDIATE").await.map(Tx::Sqlite),
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => pool.begin().await.map(Tx::Postgres),
        };
        tx.map_err(failed)
    }

    /// Runs a statement that changes rows, in a transaction of its own; how many it changed.
    pub(crate) async fn execute(&self, sql: Sql, args: &[Arg<'_>]) -> Result<u64> {
        match self.try_execute(sql, args).await? {
            Outcome::Done(rows) => Ok(rows),
            broken => Err(unexpected(broken)),
        }
    }

    pub(crate) async fn try_execute(&self, sql: Sql, args: &[Arg<'_>]) -> Result<Outcome> {
        let done = match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pools) => {
                bound!(sql.sqlite, args).execute(&pools.writer).await.map(|done| done.rows_affected())
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => {
                bound!(sql.postgres, args).execute(pool).await.map(|done| done.rows_affected())
            }
        };
        outcome(done)
    }

    /// The rows of a statement that only reads.
    pub(crate) async fn rows(&self, sql: Sql, args: &[Arg<'_>]) -> Result<Vec<Row>> {
        self.select(self.dialect().pick(sql), args, true).await
    }

    /// The only row of a statement that only reads, if there is one.
    pub(crate) async fn row(&self, sql: Sql, args: &[Arg<'_>]) -> Result<Option<Row>> {
        Ok(self.rows(sql, args).await?.pop())
    }

    /// The rows of a statement put together at run time.
    pub(crate) async fn rows_of_text(&self, sql: &str, args: &[Arg<'_>]) -> Result<Vec<Row>> {
        self.select(sql, args, false).await
    }

    async fn select(&self, sql: &str, args: &[Arg<'_>], keep_prepared: bool) -> Result<Vec<Row>> {
        let rows = match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pools) => {
                let query = bound!(sql, args).persistent(keep_prepared);
                query.fetch_all(&pools.readers).await.map(|rows| rows.into_iter().map(Row::Sqlite).collect())
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => {
                let query = bound!(sql, args).persistent(keep_prepared);
                query.fetch_all(pool).await.map(|rows| rows.into_iter().map(Row::Postgres).collect())
            }
        };
        rows.map_err(failed)
    }

    /// Closes all connections; a later call fails.
    pub(crate) async fn close(&self) {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pools) => {
                pools.readers.close().await;
                pools.writer.close().await;
            }
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
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Runs a statement that changes rows; how many it changed.
    pub(crate) async fn execute(&mut self, sql: Sql, args: &[Arg<'_>]) -> Result<u64> {
        match self.try_execute(sql, args).await? {
            Outcome::Done(rows) => Ok(rows),
            broken => Err(unexpected(broken)),
        }
    }

    pub(crate) async fn try_execute(&mut self, sql: Sql, args: &[Arg<'_>]) -> Result<Outcome> {
        let done = match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(tx) => {
                bound!(sql.sqlite, args).execute(&mut **tx).await.map(|done| done.rows_affected())
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(tx) => {
                bound!(sql.postgres, args).execute(&mut **tx).await.map(|done| done.rows_affected())
            }
        };
        outcome(done)
    }

    /// The rows of a statement, be it one that changes some.
    pub(crate) async fn rows(&mut self, sql: Sql, args: &[Arg<'_>]) -> Result<Vec<Row>> {
        let rows = match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(tx) => (bound!(sql.sqlite, args).fetch_all(&mut **tx).await)
                .map(|rows| rows.into_iter().map(Row::Sqlite).collect()),
            #[cfg(feature = "postgres")]
            Self::Postgres(tx) => (bound!(sql.postgres, args).fetch_all(&mut **tx).await)
                .map(|rows| rows.into_iter().map(Row::Postgres).collect()),
        };
        rows.map_err(failed)
    }

    /// The only row of a statement, if there is one.
    pub(crate) async fn row(&mut self, sql: Sql, args: &[Arg<'_>]) -> Result<Option<Row>> {
        Ok(self.rows(sql, args).await?.pop())
    }

    /// Runs the statements of a script.
    pub(crate) async fn script(&mut self, text: &str) -> Result<()> {
        let done = match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(tx) => sqlx::Executor::execute(&mut **tx, sqlx::raw_sql(text)).await.map(drop),
            #[cfg(feature = "postgres")]
            Self::Postgres(tx) => sqlx::Executor::execute(&mut **tx, sqlx::raw_sql(text)).await.map(drop),
        };
        done.map_err(failed)
    }

    pub(crate) async fn commit(self) -> Result<()> {
        let done = match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(tx) => tx.commit().await,
            #[cfg(feature = "postgres")]
            Self::Postgres(tx) => tx.commit().await,
        };
        done.map_err(failed)
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dialect())
    }
}

fn outcome(done: sqlx::Result<u64>) -> Result<Outcome> {
    match done {
        Ok(rows) => Ok(Outcome::Done(rows)),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(Outcome::Duplicate),
        Err(sqlx::Error::Database(error)) if error.is_foreign_key_violation() => Ok(Outcome::Dangling),
        Err(error) => Err(failed(error)),
    }
}

fn unexpected(outcome: Outcome) -> Error {
    Error::of(code::STORE_CORRUPT, "a constraint of the database was broken")
        .with("outcome", format_args!("{outcome:?}"))
}

/// Hides the driver's error behind ours.
pub(crate) fn failed(error: sqlx::Error) -> Error {
    let ours = match &error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            Error::of(code::STORE_CORRUPT, "a row of the database cannot be read")
        }
        // Class 22 of the SQL standard: data that cannot be stored, such as a text with a zero byte.
        sqlx::Error::Database(database) if database.code().is_some_and(|code| code.starts_with("22")) => {
            Error::new(ErrorKind::Invalid, "the database cannot keep this value")
        }
        _ => Error::of(code::STORE_FAILED, "the database failed"),
    };
    ours.source(error)
}

#[cfg(test)]
mod prepare {
    use sqlx::Executor;

    use super::*;

    impl Tx {
        pub(crate) async fn prepare(&mut self, sql: Sql) -> Result<()> {
            match self {
                #[cfg(feature = "sqlite")]
                Self::Sqlite(tx) => tx.prepare(sql.sqlite).await.map(drop).map_err(failed),
                #[cfg(feature = "postgres")]
                Self::Postgres(tx) => tx.prepare(sql.postgres).await.map(drop).map_err(failed),
            }
        }
    }
}
