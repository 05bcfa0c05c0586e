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

/// The capacity of agents; nobody else places something on them until the transaction ends, or overlooks that it has.
pub(crate) const LOCK_AGENTS: Sql = Sql {
    sqlite: "SELECT id, capacity FROM agents WHERE id IN (SELECT value FROM json_each($1))",
    postgres: "WITH locked AS (SELECT id FROM agents
       WHERE id IN (SELECT value FROM json_array_elements_text(CAST($1 AS json))) ORDER BY id FOR UPDATE)
     UPDATE agents SET placements = placements + 1 FROM locked WHERE agents.id = locked.id
     RETURNING agents.id, agents.capacity",
};

/// What is held on agents.
pub(crate) const HELD: Sql = sql!(
    "SELECT agent_id, session_id, allocated FROM kernels WHERE holds AND agent_id IN (SELECT value FROM ",
    sqlite: "json_each($1))",
    postgres: "json_array_elements_text(CAST($1 AS json)))",
    ""
);

/// What is held on agents beside their capacity and what has been placed on them so far; nobody waits. For PostgreSQL.
#[cfg_attr(not(feature = "postgres"), allow(dead_code))]
pub(crate) const ROOM: Sql = Sql {
    sqlite: "SELECT 1",
    postgres: "SELECT agents.id, session_id, allocated, capacity, placements
     FROM agents LEFT JOIN kernels ON agent_id = agents.id AND holds
     WHERE agents.id IN (SELECT value FROM json_array_elements_text(CAST($1 AS json)))",
};

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

/// The guarded update of sessions, for PostgreSQL.
macro_rules! replace_in_json {
    () => {
        concat!(
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
        )
    };
}

/// What becomes of a kernel whose place is taken.
macro_rules! kernel_is_there {
    () => {
        "ON CONFLICT (session_id, place) DO UPDATE SET id = excluded.id, image = excluded.image,
         agent_id = excluded.agent_id, status = excluded.status, holds = excluded.holds, allocated = excluded.allocated"
    };
}

/// What belongs to sessions, for PostgreSQL: kernels, and events in the order of `place`, which is also the one of their numbers. It
/// ends with the ids that `changed` has and with these numbers, as lists in JSON.
macro_rules! rest_in_json {
    ($which:literal) => {
        concat!(
            ", put AS (INSERT INTO kernels (session_id, place, id, image, agent_id, status, holds, allocated)
       SELECT r.session_id, r.place, r.id, r.image, r.agent_id, r.status, r.holds, r.allocated
       FROM json_to_recordset(CAST($2 AS json)) AS r (session_id TEXT, place BIGINT, id TEXT, image TEXT,
       agent_id TEXT, status TEXT, holds BOOLEAN, allocated TEXT) ",
            $which,
            " ",
            kernel_is_there!(),
            "),
     added AS (INSERT INTO session_events (session_id, at, doc)
       SELECT r.session_id, r.at, r.doc FROM json_to_recordset(CAST($3 AS json))
       AS r (place BIGINT, session_id TEXT, at BIGINT, doc TEXT) ",
            $which,
            " ORDER BY r.place RETURNING seq),
     queued AS (INSERT INTO outbox (seq) SELECT seq FROM added)
     SELECT CAST((SELECT COALESCE(json_agg(id), '[]') FROM changed) AS TEXT),
       CAST((SELECT COALESCE(json_agg(seq ORDER BY seq), '[]') FROM added) AS TEXT)"
        )
    };
}

/// The guarded update of sessions, whose version must be one less than that given. Here and below, SQLite takes the columns of one
/// row, since a call costs it less than taking JSON apart; PostgreSQL takes a list of rows, since a call is a round trip.
pub(crate) const REPLACE_SESSIONS: Sql = Sql {
    sqlite: concat!(
        "UPDATE sessions SET access_key = $3, name = $4, living = $5, terminated_at = $21, latest_at = $23, ",
        unindexed_columns!()
    ),
    postgres: replace_in_json!(),
};

/// The same with kernels (`$2`) and events (`$3`) of the sessions, for PostgreSQL: one round trip for all.
#[cfg_attr(not(feature = "postgres"), allow(dead_code))]
pub(crate) const REPLACE_ALL: Sql = Sql {
    sqlite: "SELECT 1",
    postgres: concat!(
        "WITH changed AS (",
        replace_in_json!(),
        " RETURNING sessions.id)",
        rest_in_json!("WHERE TRUE")
    ),
};

/// The same without locks before, for PostgreSQL: only what is as this side knows it is replaced. `$4` says where the capacity
/// guard has found room for which session, `$5` which version is replaced. Rows are locked in the order in which all do.
#[cfg_attr(not(feature = "postgres"), allow(dead_code))]
pub(crate) const REPLACE_KNOWN: Sql = Sql {
    sqlite: "SELECT 1",
    postgres: concat!(
        "WITH known AS (SELECT sessions.id FROM json_to_recordset(CAST($5 AS json)) AS k (id TEXT, version BIGINT)
       JOIN sessions ON sessions.id = k.id AND sessions.version = k.version ORDER BY sessions.id FOR UPDATE OF sessions),
     free AS (SELECT agents.id
       FROM json_to_recordset(CAST($4 AS json)) AS k (agent TEXT, placements BIGINT)
       JOIN agents ON agents.id = k.agent AND agents.placements = k.placements
       WHERE (SELECT COUNT(*) FROM known) > 0 ORDER BY agents.id FOR UPDATE OF agents),
     taken AS (UPDATE agents SET placements = placements + 1 FROM free WHERE agents.id = free.id RETURNING agents.id),
     refused AS (SELECT k.session FROM json_to_recordset(CAST($4 AS json)) AS k (session TEXT, agent TEXT)
       WHERE k.agent NOT IN (SELECT id FROM taken)),
     changed AS (",
        replace_in_json!(),
        " AND (NOT r.living OR sessions.living AND sessions.access_key = r.access_key AND sessions.name = r.name)
       AND sessions.cluster_size = r.cluster_size AND sessions.id IN (SELECT id FROM known)
       AND sessions.id NOT IN (SELECT session FROM refused)
       RETURNING sessions.id)",
        rest_in_json!("WHERE r.session_id IN (SELECT id FROM changed)")
    ),
};

/// The same for sessions that keep what indexes go by. PostgreSQL sees that for itself; SQLite writes every index of a column that
/// is set, equal or not.
#[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
pub(crate) const REPLACE_UNINDEXED: Sql =
    Sql { sqlite: concat!("UPDATE sessions SET ", unindexed_columns!()), ..REPLACE_SESSIONS };

/// A new session, unless its id or the name of a living one is taken: its id if it is in.
#[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
pub(crate) const INSERT_SESSION: Sql = Sql::same(concat!(
    "INSERT INTO sessions (",
    session_columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
     $24, $25, $26) ON CONFLICT DO NOTHING RETURNING id"
));

/// The same for many with kernels and events, for PostgreSQL.
#[cfg_attr(not(feature = "postgres"), allow(dead_code))]
pub(crate) const INSERT_ALL: Sql = Sql {
    sqlite: "SELECT 1",
    postgres: concat!(
        "WITH changed AS (INSERT INTO sessions (",
        session_columns!(),
        ") SELECT ",
        session_columns!(),
        " ",
        sessions_in_json!(),
        " ON CONFLICT DO NOTHING RETURNING id)",
        rest_in_json!("WHERE r.session_id IN (SELECT id FROM changed)")
    ),
};

/// Kernels by their place in the session.
#[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
pub(crate) const PUT_KERNEL: Sql = Sql::same(concat!(
    "INSERT INTO kernels (session_id, place, id, image, agent_id, status, holds, allocated)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ",
    kernel_is_there!()
));

/// A kernel that still is where it was: no index changes.
#[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
pub(crate) const REPLACE_KERNEL: Sql = Sql::same(
    "UPDATE kernels SET id = $3, image = $4, status = $6, allocated = $8
     WHERE session_id = $1 AND place = $2 AND agent_id IS NOT DISTINCT FROM $5 AND holds = $7",
);

/// An event of a session.
#[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
pub(crate) const ADD_EVENT: Sql =
    Sql::same("INSERT INTO session_events (session_id, at, doc) VALUES ($1, $2, $3) RETURNING seq");

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
    ("ROOM", ROOM),
    ("REPLACE_SESSIONS", REPLACE_SESSIONS),
    ("REPLACE_UNINDEXED", REPLACE_UNINDEXED),
    ("REPLACE_ALL", REPLACE_ALL),
    ("REPLACE_KNOWN", REPLACE_KNOWN),
    ("INSERT_SESSION", INSERT_SESSION),
    ("INSERT_ALL", INSERT_ALL),
    ("PUT_KERNEL", PUT_KERNEL),
    ("REPLACE_KERNEL", REPLACE_KERNEL),
    ("ADD_EVENT", ADD_EVENT),
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
