//! The schema, brought forward step by step.

use bai_core::clock::Clock;
use bai_core::error::{Error, Result, code};

use crate::db::{Db, args};
use crate::dialect::{LOCK_MIGRATIONS, statements};

/// Every step there ever was, numbered from 1. A released step is never changed: a new one is added.
pub(crate) const STEPS: &[&str] = &[
    include_str!("../migrations/0001_initial.sql"),
    include_str!("../migrations/0002_indexes.sql"),
    include_str!("../migrations/0003_outbox.sql"),
    include_str!("../migrations/0004_placements.sql"),
    include_str!("../migrations/0005_room_for_changes.sql"),
];

statements! {
    CREATE_TABLE = "CREATE TABLE IF NOT EXISTS schema_steps (step BIGINT PRIMARY KEY, applied_at BIGINT NOT NULL)";
    APPLIED = "SELECT COALESCE(MAX(step), 0) FROM schema_steps";
    MARK = "INSERT INTO schema_steps (step, applied_at) VALUES ($1, $2)";
}

/// Applies the steps that the database has not seen yet, all or none.
///
/// # Errors
/// `Unavailable` when it has seen steps that this version does not know.
pub(crate) async fn migrate(db: &Db, clock: &dyn Clock) -> Result<()> {
    let mut tx = db.begin().await?;
    tx.rows(LOCK_MIGRATIONS, &[]).await?;
    tx.execute(CREATE_TABLE, &[]).await?;
    let applied = tx.row(APPLIED, &[]).await?.map_or(Ok(0), |row| row.int(0))?;
    let done = usize::try_from(applied).ok().filter(|done| *done <= STEPS.len()).ok_or_else(|| {
        Error::of(code::STORE_FAILED, "the database was written by a newer version").with("step", applied)
    })?;
    for (number, step) in (1i64..).zip(STEPS).skip(done) {
        tx.script(&db.dialect().ddl(step)).await?;
        tx.execute(MARK, &args![number, clock.now().timestamp_micros()]).await?;
        tracing::info!(step = number, "migrated the database");
    }
    tx.commit().await
}
