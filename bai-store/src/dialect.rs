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

/// One text around the part that differs.
macro_rules! sql {
    ($before:literal, sqlite: $sqlite:literal, postgres: $postgres:literal, $after:literal) => {
        Sql { sqlite: concat!($before, $sqlite, $after), postgres: concat!($before, $postgres, $after) }
    };
}

/// The state of sessions that changes are checked against; nobody else changes them until the transaction ends. `$1` here
/// and below is a list in JSON: one round trip, however long it is.
pub(crate) const LOCK_SESSIONS: Sql = sql!(
    "SELECT id, version, cluster_size, access_key, name, living, latest_at, terminated_at FROM sessions
     WHERE id IN (SELECT value FROM ",
    sqlite: "json_each($1))",
    postgres: "json_array_elements_text(CAST($1 AS json))) ORDER BY id FOR UPDATE",
    ""
);

/// The capacity of agents; nobody else places something on them until the transaction ends.
pub(crate) const LOCK_AGENTS: Sql = sql!(
    "SELECT id, capacity FROM agents WHERE id IN (SELECT value FROM ",
    sqlite: "json_each($1))",
    postgres: "json_array_elements_text(CAST($1 AS json))) ORDER BY id FOR UPDATE",
    ""
);

/// What is held on agents.
pub(crate) const HELD: Sql = sql!(
    "SELECT agent_id, session_id, allocated FROM kernels WHERE holds AND agent_id IN (SELECT value FROM ",
    sqlite: "json_each($1))",
    postgres: "json_array_elements_text(CAST($1 AS json)))",
    ""
);

/// The columns of a session, in the order of the arguments.
macro_rules! session_columns {
    () => {
        "id, version, access_key, name, living, user_id, user_email, domain, project_id, project, resource_group,
         session_type, cluster_mode, cluster_size, status, status_info, result, startup_command, created_at, starts_at,
         terminated_at, scheduled_at, latest_at, image_list, agent_list, doc"
    };
}

/// The end of an update in SQLite: the columns that no index has, and the guard.
macro_rules! unindexed_columns {
    () => {
        "version = $2, user_id = $6, user_email = $7, domain = $8, project_id = $9, project = $10, resource_group = $11,
         session_type = $12, cluster_mode = $13, cluster_size = $14, status = $15, status_info = $16, result = $17,
         startup_command = $18, created_at = $19, starts_at = $20, scheduled_at = $22, image_list = $24,
         agent_list = $25, doc = $26 WHERE id = $1 AND version = $2 - 1"
    };
}

/// A list of sessions as rows, for PostgreSQL.
macro_rules! sessions_in_json {
    () => {
        "FROM json_to_recordset(CAST($1 AS json)) AS r (id TEXT, version BIGINT, access_key TEXT, name TEXT, living BOOLEAN,
         user_id TEXT, user_email TEXT, domain TEXT, project_id TEXT, project TEXT, resource_group TEXT, session_type TEXT,
         cluster_mode TEXT, cluster_size BIGINT, status TEXT, status_info TEXT, result TEXT, startup_command TEXT,
         created_at BIGINT, starts_at BIGINT, terminated_at BIGINT, scheduled_at TEXT, latest_at BIGINT, image_list TEXT,
         agent_list TEXT, doc TEXT)"
    };
}

/// The guarded update of sessions, whose version must be one less than that given. Here and below, SQLite takes the columns of one
/// row, since a call costs it less than taking JSON apart; PostgreSQL takes a list of rows, since a call is a round trip.
pub(crate) const REPLACE_SESSIONS: Sql = Sql {
    sqlite: concat!(
        "UPDATE sessions SET access_key = $3, name = $4, living = $5, terminated_at = $21, latest_at = $23, ",
        unindexed_columns!()
    ),
    postgres: concat!(
        "UPDATE sessions SET version = r.version, access_key = r.access_key, name = r.name,
     living = r.living, user_id = r.user_id, user_email = r.user_email, domain = r.domain, project_id = r.project_id,
     project = r.project, resource_group = r.resource_group, session_type = r.session_type,
     cluster_mode = r.cluster_mode, cluster_size = r.cluster_size, status = r.status, status_info = r.status_info,
     result = r.result, startup_command = r.startup_command, created_at = r.created_at, starts_at = r.starts_at,
     terminated_at = r.terminated_at, scheduled_at = r.scheduled_at, latest_at = r.latest_at,
     image_list = r.image_list, agent_list = r.agent_list, doc = r.doc
     ",
        sessions_in_json!(),
        " WHERE sessions.id = r.id AND sessions.version = r.version - 1"
    ),
};

/// The same for sessions that keep what indexes go by. PostgreSQL sees that for itself; SQLite writes every index of a column that
/// is set, equal or not.
#[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
pub(crate) const REPLACE_UNINDEXED: Sql =
    Sql { sqlite: concat!("UPDATE sessions SET ", unindexed_columns!()), ..REPLACE_SESSIONS };

/// New sessions, unless an id or the name of a living one is taken: the ids of those that are in.
pub(crate) const INSERT_SESSIONS: Sql = Sql {
    sqlite: concat!(
        "INSERT INTO sessions (",
        session_columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
         $24, $25, $26) ON CONFLICT DO NOTHING RETURNING id"
    ),
    postgres: concat!(
        "INSERT INTO sessions (",
        session_columns!(),
        ") SELECT ",
        session_columns!(),
        " ",
        sessions_in_json!(),
        " ON CONFLICT DO NOTHING RETURNING id"
    ),
};

/// Kernels by their place in the session.
pub(crate) const PUT_KERNELS: Sql = sql!(
    "INSERT INTO kernels (session_id, place, id, image, agent_id, status, holds, allocated) ",
    sqlite: "VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    postgres: "SELECT r.session_id, r.place, r.id, r.image, r.agent_id, r.status, r.holds, r.allocated
     FROM json_to_recordset(CAST($1 AS json)) AS r (session_id TEXT, place BIGINT, id TEXT, image TEXT,
     agent_id TEXT, status TEXT, holds BOOLEAN, allocated TEXT) WHERE TRUE",
    " ON CONFLICT (session_id, place) DO UPDATE SET id = excluded.id, image = excluded.image,
     agent_id = excluded.agent_id, status = excluded.status, holds = excluded.holds, allocated = excluded.allocated"
);

/// A kernel that still is where it was: no index changes.
#[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
pub(crate) const REPLACE_KERNEL: Sql = Sql::same(
    "UPDATE kernels SET id = $3, image = $4, status = $6, allocated = $8
     WHERE session_id = $1 AND place = $2 AND agent_id IS NOT DISTINCT FROM $5 AND holds = $7",
);

/// Events in the order of `place`, which is also the one of their numbers. PostgreSQL queues them in the same round trip.
pub(crate) const ADD_EVENTS: Sql = Sql {
    sqlite: "INSERT INTO session_events (session_id, at, doc) VALUES ($1, $2, $3) RETURNING seq",
    postgres: "WITH new AS (INSERT INTO session_events (session_id, at, doc)
       SELECT r.session_id, r.at, r.doc FROM json_to_recordset(CAST($1 AS json))
       AS r (place BIGINT, session_id TEXT, at BIGINT, doc TEXT) ORDER BY r.place RETURNING seq),
     queued AS (INSERT INTO outbox (seq) SELECT seq FROM new)
     SELECT seq FROM new",
};

/// Queues the events from `$1` on, which nobody else can have added, for publishing.
#[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
pub(crate) const QUEUE_EVENTS: Sql =
    Sql::same("INSERT INTO outbox (seq) SELECT seq FROM session_events WHERE seq >= $1");

/// Published events by their numbers.
pub(crate) const MARK_PUBLISHED: Sql = sql!(
    "DELETE FROM outbox WHERE seq IN (SELECT ",
    sqlite: "value FROM json_each($1))",
    postgres: "CAST(value AS BIGINT) FROM json_array_elements_text(CAST($1 AS json)))",
    ""
);

#[cfg(test)]
pub(crate) const STATEMENTS: &[(&str, Sql)] = &[
    ("LOCK_MIGRATIONS", LOCK_MIGRATIONS),
    ("LOCK_SESSIONS", LOCK_SESSIONS),
    ("LOCK_AGENTS", LOCK_AGENTS),
    ("HELD", HELD),
    ("REPLACE_SESSIONS", REPLACE_SESSIONS),
    ("REPLACE_UNINDEXED", REPLACE_UNINDEXED),
    ("INSERT_SESSIONS", INSERT_SESSIONS),
    ("PUT_KERNELS", PUT_KERNELS),
    ("REPLACE_KERNEL", REPLACE_KERNEL),
    ("ADD_EVENTS", ADD_EVENTS),
    ("QUEUE_EVENTS", QUEUE_EVENTS),
    ("MARK_PUBLISHED", MARK_PUBLISHED),
];

/// Which database is spoken to, where text is put together at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    #[cfg(feature = "sqlite")]
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres,
}

impl Dialect {
    /// A migration in the words of this database. Text is compared by its bytes in both, whatever the locale.
    pub(crate) fn ddl(self, text: &str) -> String {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite => text
                .replace("AUTO_ID", "INTEGER PRIMARY KEY AUTOINCREMENT")
                .replace("ROW_NUMBER", "INTEGER PRIMARY KEY"),
            #[cfg(feature = "postgres")]
            Self::Postgres => text
                .replace("AUTO_ID", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
                .replace("ROW_NUMBER", "BIGINT PRIMARY KEY")
                .replace(" TEXT", " TEXT COLLATE \"C\""),
        }
    }
}
