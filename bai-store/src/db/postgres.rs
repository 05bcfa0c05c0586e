//! PostgreSQL: a pool of connections.

use std::str::FromStr;
use std::time::Duration;

use bai_core::error::{Error, ErrorKind, Result, code};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection, PgExecutor, PgPool};

use super::{Arg, Outcome, broken_row};

/// A connection that has not been used for so long may have been cut: it is asked, which takes a round trip.
const REST: Duration = Duration::from_secs(1);

/// A connection keeps the plan of a statement. One that was made while a table was small reads all of it, and would go on to do so;
/// every statement has an index instead. What has none is not worth compiling, however much the planner thinks it costs. A plan
/// for the arguments at hand is no better, and takes longer to make than most statements take to run.
const PLANNER: [(&str, &str); 3] =
    [("enable_seqscan", "off"), ("jit", "off"), ("plan_cache_mode", "force_generic_plan")];

pub(crate) type PgTx = sqlx::Transaction<'static, sqlx::Postgres>;

/// Connects to the database that `url` names.
pub(super) async fn connect(url: &str, max_connections: u32) -> Result<PgPool> {
    // The URL may hold a password: it appears in no message.
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| Error::of(code::CONFIG_INVALID, "not a valid PostgreSQL URL").source(error))?
        .application_name("bai")
        .options(PLANNER);
    let pool = PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(Duration::from_secs(10))
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for >= REST {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_with(options);
    pool.await.map_err(failed)
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
            Arg::Bytes(value) => query.bind(&**value),
            Arg::Texts(list) => query.bind(&**list),
            Arg::Ints(list) => query.bind(&**list),
            Arg::Bools(list) => query.bind(&**list),
        })
    };
}

pub(super) async fn execute(on: impl PgExecutor<'_>, sql: &'static str, args: &[Arg<'_>]) -> Result<Outcome> {
    match bound!(sql, args).execute(on).await {
        Ok(done) => Ok(Outcome::Done(done.rows_affected())),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(Outcome::Duplicate),
        Err(sqlx::Error::Database(error)) if error.is_foreign_key_violation() => Ok(Outcome::Dangling),
        Err(error) => Err(failed(error)),
    }
}

/// The rows of a fixed statement, which the connection keeps prepared.
pub(super) async fn rows(on: impl PgExecutor<'_>, sql: &'static str, args: &[Arg<'_>]) -> Result<Vec<PgRow>> {
    bound!(sql, args).fetch_all(on).await.map_err(failed)
}

/// The rows of a statement put together at run time. All that comes from outside is in `args`.
pub(super) async fn rows_of_text(on: impl PgExecutor<'_>, sql: &str, args: &[Arg<'_>]) -> Result<Vec<PgRow>> {
    let query = bound!(AssertSqlSafe(sql), args).persistent(false);
    query.fetch_all(on).await.map_err(failed)
}

/// Runs the statements of a script of ours.
pub(super) async fn script(on: impl PgExecutor<'_>, text: &str) -> Result<()> {
    on.execute(sqlx::raw_sql(AssertSqlSafe(text))).await.map(drop).map_err(failed)
}

pub(super) fn read<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
    row: &'r PgRow,
    column: usize,
) -> Result<T> {
    sqlx::Row::try_get(row, column).map_err(|error| broken_row().source(error))
}

/// Hides the driver's error behind ours.
pub(super) fn failed(error: sqlx::Error) -> Error {
    let ours = match &error {
        // Class 22 of the SQL standard: data that cannot be stored, such as a text with a zero byte.
        sqlx::Error::Database(database) if database.code().is_some_and(|code| code.starts_with("22")) => {
            Error::new(ErrorKind::Invalid, "the database cannot keep this value")
        }
        _ => Error::of(code::STORE_FAILED, "the database failed"),
    };
    ours.source(error)
}

#[cfg(test)]
pub(super) async fn prepare(tx: &mut PgTx, sql: &'static str) -> Result<()> {
    use sqlx::{Executor, SqlSafeStr};
    (&mut **tx).prepare(sql.into_sql_str()).await.map(drop).map_err(failed)
}
