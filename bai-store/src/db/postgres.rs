//! PostgreSQL: a pool of connections.

use std::str::FromStr;
use std::time::Duration;

use bai_core::error::{Error, Result, code};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::{Db, failed};

impl Db {
    /// Connects to the database that `url` names.
    pub(crate) async fn connect_postgres(url: &str, max_connections: u32) -> Result<Self> {
        // The URL may hold a password: it appears in no message.
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| Error::of(code::CONFIG_INVALID, "not a valid PostgreSQL URL").source(error))?
            .application_name("bai");
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options);
        pool.await.map(Self::Postgres).map_err(failed)
    }
}
