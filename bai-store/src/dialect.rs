//! Where SQLite and PostgreSQL differ. Everything else is one text for both.

/// A statement in the words of each database.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sql {
    #[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
    pub(crate) sqlite: &'static str,
    #[cfg_attr(not(feature = "postgres"), allow(dead_code))]
    pub(crate) postgres: &'static str,
}

impl Sql {
    /// The same words for both.
    pub(crate) const fn same(text: &'static str) -> Self {
        Self { sqlite: text, postgres: text }
    }
}

/// Names the statements of a module, and lists them all in `STATEMENTS`: a test prepares each on both databases.
macro_rules! statements {
    ($($name:ident = $sql:expr;)*) => {
        $(const $name: $crate::dialect::Sql = $crate::dialect::Sql::same($sql);)*

        #[cfg(test)]
        pub(crate) const STATEMENTS: &[(&str, $crate::dialect::Sql)] = &[$((stringify!($name), $name)),*];
    };
}
pub(crate) use statements;

/// Keeps other processes from migrating at the same time, until the transaction ends.
pub(crate) const LOCK_MIGRATIONS: Sql =
    Sql { sqlite: "SELECT 1", postgres: "SELECT 1 FROM (SELECT pg_advisory_xact_lock(4802385)) AS lock" };

/// The state of a session that a change is checked against; nobody else changes the session until the transaction ends.
pub(crate) const LOCK_SESSION: Sql = Sql {
    sqlite: "SELECT version, cluster_size, access_key, name, living FROM sessions WHERE id = $1",
    postgres: "SELECT version, cluster_size, access_key, name, living FROM sessions WHERE id = $1 FOR UPDATE",
};

/// The capacity of an agent; nobody else places something on it until the transaction ends.
pub(crate) const LOCK_AGENT: Sql = Sql {
    sqlite: "SELECT capacity FROM agents WHERE id = $1",
    postgres: "SELECT capacity FROM agents WHERE id = $1 FOR UPDATE",
};

#[cfg(test)]
pub(crate) const STATEMENTS: &[(&str, Sql)] =
    &[("LOCK_MIGRATIONS", LOCK_MIGRATIONS), ("LOCK_SESSION", LOCK_SESSION), ("LOCK_AGENT", LOCK_AGENT)];

/// Which database is spoken to, where text is put together at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    #[cfg(feature = "sqlite")]
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres,
}

impl Dialect {
    /// The words of this database.
    pub(crate) fn pick(self, sql: Sql) -> &'static str {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite => sql.sqlite,
            #[cfg(feature = "postgres")]
            Self::Postgres => sql.postgres,
        }
    }

    /// A migration in the words of this database. Text is compared by its bytes in both, whatever the locale.
    pub(crate) fn ddl(self, text: &str) -> String {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite => text.replace("AUTO_ID", "INTEGER PRIMARY KEY AUTOINCREMENT"),
            #[cfg(feature = "postgres")]
            Self::Postgres => text
                .replace("AUTO_ID", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
                .replace(" TEXT", " TEXT COLLATE \"C\""),
        }
    }
}
