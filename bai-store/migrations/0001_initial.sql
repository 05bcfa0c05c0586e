-- Times are microseconds since the Unix epoch. Ids are hyphenated UUIDs as text. A column `doc` is the row as JSON;
-- what is searched, ordered or guarded by has a column beside it. AUTO_ID is an identity that is never given out twice.

-- `image_list` and `agent_list` are those of the kernels, joined by a character that sorts before all others: for
-- ordering. `scheduled_at` is text in the API, too.
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    version BIGINT NOT NULL,
    access_key TEXT NOT NULL,
    name TEXT NOT NULL,
    living BOOLEAN NOT NULL,
    user_id TEXT NOT NULL,
    user_email TEXT NOT NULL,
    domain TEXT NOT NULL,
    project_id TEXT NOT NULL,
    project TEXT NOT NULL,
    resource_group TEXT NOT NULL,
    session_type TEXT NOT NULL,
    cluster_mode TEXT NOT NULL,
    cluster_size BIGINT NOT NULL,
    status TEXT NOT NULL,
    status_info TEXT,
    result TEXT NOT NULL,
    startup_command TEXT,
    created_at BIGINT NOT NULL,
    starts_at BIGINT,
    terminated_at BIGINT,
    scheduled_at TEXT,
    latest_at BIGINT NOT NULL,
    image_list TEXT NOT NULL,
    agent_list TEXT NOT NULL,
    doc TEXT NOT NULL
);
CREATE UNIQUE INDEX sessions_living_name ON sessions (access_key, name) WHERE living;
CREATE INDEX sessions_status ON sessions (status);
CREATE INDEX sessions_latest ON sessions (latest_at DESC, id);
CREATE INDEX sessions_ended ON sessions (terminated_at) WHERE NOT living;

-- A row per kernel, by its place in the session. `holds`: it has an allocation on its agent.
CREATE TABLE kernels (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    place BIGINT NOT NULL,
    id TEXT NOT NULL,
    image TEXT NOT NULL,
    agent_id TEXT,
    status TEXT NOT NULL,
    holds BOOLEAN NOT NULL,
    allocated TEXT NOT NULL,
    PRIMARY KEY (session_id, place)
);
CREATE INDEX kernels_holding ON kernels (agent_id) WHERE holds;

-- The history of each session, and at once the queue of events to publish.
CREATE TABLE session_events (
    seq AUTO_ID,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    published BOOLEAN NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX session_events_history ON session_events (session_id, seq);
CREATE INDEX session_events_unpublished ON session_events (seq) WHERE NOT published;

CREATE TABLE domains (
    name TEXT PRIMARY KEY,
    doc TEXT NOT NULL
);

CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    doc TEXT NOT NULL
);

CREATE TABLE memberships (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL,
    PRIMARY KEY (project_id, user_id)
);

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    username TEXT NOT NULL UNIQUE,
    full_name TEXT NOT NULL,
    doc TEXT NOT NULL
);

-- `sealed_secret` is the secret key, encrypted; `doc` does not have it.
CREATE TABLE keypairs (
    access_key TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    policy TEXT NOT NULL,
    sealed_secret BYTEA NOT NULL,
    doc TEXT NOT NULL
);

CREATE TABLE policies (
    name TEXT PRIMARY KEY,
    doc TEXT NOT NULL
);

CREATE TABLE resource_groups (
    name TEXT PRIMARY KEY,
    doc TEXT NOT NULL
);

-- `schedulable` and `first_contact` rule over what `doc` says.
CREATE TABLE agents (
    id TEXT PRIMARY KEY,
    schedulable BOOLEAN NOT NULL,
    first_contact BIGINT NOT NULL,
    capacity TEXT NOT NULL,
    doc TEXT NOT NULL
);

CREATE TABLE images (
    name TEXT NOT NULL,
    architecture TEXT NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (name, architecture)
);

CREATE TABLE agent_images (
    agent_id TEXT NOT NULL,
    name TEXT NOT NULL,
    architecture TEXT NOT NULL,
    PRIMARY KEY (agent_id, name, architecture)
);
CREATE INDEX agent_images_name ON agent_images (name, architecture);

CREATE TABLE kernel_logs (
    kernel_id TEXT PRIMARY KEY,
    session_id TEXT NOT NULL,
    log BYTEA NOT NULL
);
CREATE INDEX kernel_logs_session ON kernel_logs (session_id);

CREATE TABLE config (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    revision BIGINT NOT NULL
);

-- The last changes of `config`, for watchers; `value` is null for a deletion.
CREATE TABLE config_changes (
    revision BIGINT PRIMARY KEY,
    key TEXT NOT NULL,
    value TEXT
);

-- One row: how many changes of `config` there have been.
CREATE TABLE config_revision (
    id BIGINT PRIMARY KEY,
    revision BIGINT NOT NULL
);
INSERT INTO config_revision (id, revision) VALUES (1, 0);
