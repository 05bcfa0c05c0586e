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

/// A statement to which PostgreSQL adds a lock.
macro_rules! locking {
    ($text:literal, $lock:literal) => {
        Sql { sqlite: $text, postgres: concat!($text, $lock) }
    };
}

/// A statement on the rows whose column is in the list `$1`.
macro_rules! in_list {
    ($before:literal) => {
        in_list!($before, "")
    };
    ($before:literal, $after:literal) => {
        in_list!($before, $after, postgres: "")
    };
    ($before:literal, $after:literal, postgres: $lock:literal) => {
        Sql {
            sqlite: concat!($before, " IN (SELECT value FROM json_each($1))", $after),
            postgres: concat!($before, " = ANY($1)", $after, $lock),
        }
    };
}

/// The state of sessions that changes are checked against; nobody else changes them until the transaction ends. `$1` here
/// and below is a list: one round trip, however long it is.
pub(crate) const LOCK_SESSIONS: Sql = in_list!(
    "SELECT id, version, cluster_size, access_key, name, living, latest_at, terminated_at FROM sessions WHERE id",
    " ORDER BY id",
    postgres: " FOR UPDATE"
);

/// The capacity of agents; nobody else places something on them until the transaction ends, or overlooks that it has.
pub(crate) const LOCK_AGENTS: Sql = Sql {
    sqlite: "SELECT id, capacity FROM agents WHERE id IN (SELECT value FROM json_each($1))",
    postgres: "WITH locked AS (SELECT id FROM agents WHERE id = ANY($1) ORDER BY id FOR UPDATE)
     UPDATE agents SET placements = placements + 1 FROM locked WHERE agents.id = locked.id
     RETURNING agents.id, agents.capacity",
};

/// What is held on agents.
pub(crate) const HELD: Sql =
    in_list!("SELECT agent_id, session_id, allocated FROM kernels WHERE holds AND agent_id");

/// What is held on agents beside their capacity and what has been placed on them so far; nobody waits. For PostgreSQL.
#[cfg_attr(not(feature = "postgres"), allow(dead_code))]
pub(crate) const ROOM: Sql = Sql {
    sqlite: "SELECT 1",
    postgres: "SELECT agents.id, session_id, allocated, capacity, placements
     FROM agents LEFT JOIN kernels ON agent_id = agents.id AND holds
     WHERE agents.id = ANY($1)",
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

/// The columns of a kernel, likewise.
macro_rules! kernel_columns {
    () => {
        "session_id, place, id, image, agent_id, status, holds, allocated"
    };
}

/// Sessions from a list per column, for PostgreSQL.
macro_rules! sessions_in_lists {
    () => {
        concat!(
            "FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::boolean[], $6::text[], $7::text[], $8::text[],
         $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[], $15::text[], $16::text[],
         $17::text[], $18::text[], $19::bigint[], $20::bigint[], $21::bigint[], $22::text[], $23::bigint[], $24::text[],
         $25::text[], $26::text[]) AS r (",
            session_columns!(),
            ")"
        )
    };
}

/// The guarded update of sessions, for PostgreSQL.
macro_rules! replace_in_lists {
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
            sessions_in_lists!(),
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

/// What belongs to sessions, for PostgreSQL: kernels, and events in the order of their numbers. It ends with the ids that
/// `changed` has and with these numbers, as lists in JSON.
macro_rules! rest_in_lists {
    ($which:literal) => {
        concat!(
            ", put AS (INSERT INTO kernels (",
            kernel_columns!(),
            ") SELECT ",
            kernel_columns!(),
            " FROM unnest($27::text[], $28::bigint[], $29::text[], $30::text[], $31::text[], $32::text[], $33::boolean[],
       $34::text[]) AS r (",
            kernel_columns!(),
            ") ",
            $which,
            " ",
            kernel_is_there!(),
            "),
     added AS (INSERT INTO session_events (session_id, at, doc) SELECT r.session_id, r.at, r.doc
       FROM unnest($35::text[], $36::bigint[], $37::text[]) WITH ORDINALITY AS r (session_id, at, doc, number) ",
            $which,
            " ORDER BY r.number RETURNING seq),
     queued AS (INSERT INTO outbox (seq) SELECT seq FROM added)
     SELECT CAST((SELECT COALESCE(json_agg(id), '[]') FROM changed) AS TEXT),
       CAST((SELECT COALESCE(json_agg(seq ORDER BY seq), '[]') FROM added) AS TEXT)"
        )
    };
}

/// The guarded update of sessions, whose version must be one less than that given. Here and below, SQLite takes the columns of one
/// row, since a call costs it less than taking lists apart; PostgreSQL takes a list per column, since a call is a round trip.
pub(crate) const REPLACE_SESSIONS: Sql = Sql {
    sqlite: concat!(
        "UPDATE sessions SET access_key = $3, name = $4, living = $5, terminated_at = $21, latest_at = $23, ",
        unindexed_columns!()
    ),
    postgres: replace_in_lists!(),
};

/// The same with kernels (from `$27`) and events (from `$35`) of the sessions, for PostgreSQL: one round trip for all.
#[cfg_attr(not(feature = "postgres"), allow(dead_code))]
pub(crate) const REPLACE_ALL: Sql = Sql {
    sqlite: "SELECT 1",
    postgres: concat!(
        "WITH changed AS (",
        replace_in_lists!(),
        " RETURNING sessions.id)",
        rest_in_lists!("WHERE TRUE")
    ),
};

/// The same without locks before, for PostgreSQL: only what is as this side knows it is replaced. `$38` to `$40` say for which
/// session the capacity guard has found room on which agent as it was. Rows are locked in the order in which all do.
#[cfg_attr(not(feature = "postgres"), allow(dead_code))]
pub(crate) const REPLACE_KNOWN: Sql = Sql {
    sqlite: "SELECT 1",
    postgres: concat!(
        "WITH known AS (SELECT sessions.id FROM unnest($1::text[], $2::bigint[]) AS k (id, version)
       JOIN sessions ON sessions.id = k.id AND sessions.version = k.version - 1
       ORDER BY sessions.id FOR UPDATE OF sessions),
     free AS (SELECT agents.id FROM unnest($39::text[], $40::bigint[]) AS k (agent, placements)
       JOIN agents ON agents.id = k.agent AND agents.placements = k.placements
       WHERE (SELECT COUNT(*) FROM known) > 0 ORDER BY agents.id FOR UPDATE OF agents),
     taken AS (UPDATE agents SET placements = placements + 1 FROM free WHERE agents.id = free.id RETURNING agents.id),
     refused AS (SELECT k.session FROM unnest($38::text[], $39::text[]) AS k (session, agent)
       WHERE k.agent NOT IN (SELECT id FROM taken)),
     changed AS (",
        replace_in_lists!(),
        " AND (NOT r.living OR sessions.living AND sessions.access_key = r.access_key AND sessions.name = r.name)
       AND sessions.cluster_size = r.cluster_size AND sessions.id IN (SELECT id FROM known)
       AND sessions.id NOT IN (SELECT session FROM refused)
       RETURNING sessions.id)",
        rest_in_lists!("WHERE r.session_id IN (SELECT id FROM changed)")
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
        sessions_in_lists!(),
        " ON CONFLICT DO NOTHING RETURNING id)",
        rest_in_lists!("WHERE r.session_id IN (SELECT id FROM changed)")
    ),
};

/// Kernels by their place in the session.
#[cfg_attr(not(feature = "sqlite"), allow(dead_code))]
pub(crate) const PUT_KERNEL: Sql = Sql::same(concat!(
    "INSERT INTO kernels (",
    kernel_columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ",
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
pub(crate) const MARK_PUBLISHED: Sql = in_list!("DELETE FROM outbox WHERE seq");

/// The sessions that ended first, before a time; nobody else changes them until the transaction ends.
pub(crate) const ENDED: Sql = locking!(
    "SELECT id FROM sessions WHERE NOT living AND terminated_at < $1 ORDER BY terminated_at, id LIMIT $2",
    " FOR UPDATE"
);

/// What there is of sessions, in the order in which it is removed.
pub(crate) const REMOVE: [Sql; 5] = [
    in_list!("DELETE FROM kernel_logs WHERE session_id"),
    in_list!("DELETE FROM kernels WHERE session_id"),
    in_list!("DELETE FROM outbox WHERE seq IN (SELECT seq FROM session_events WHERE session_id", ")"),
    in_list!("DELETE FROM session_events WHERE session_id"),
    in_list!("DELETE FROM sessions WHERE id"),
];

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
    ("ENDED", ENDED),
    ("REMOVE 0", REMOVE[0]),
    ("REMOVE 1", REMOVE[1]),
    ("REMOVE 2", REMOVE[2]),
    ("REMOVE 3", REMOVE[3]),
    ("REMOVE 4", REMOVE[4]),
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
                .replace("ROW_NUMBER", "INTEGER PRIMARY KEY")
                .replace("POSTGRES ", "-- "),
            #[cfg(feature = "postgres")]
            Self::Postgres => text
                .replace("AUTO_ID", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
                .replace("ROW_NUMBER", "BIGINT PRIMARY KEY")
                .replace("POSTGRES ", "")
                .replace(" TEXT", " TEXT COLLATE \"C\""),
        }
    }
}
