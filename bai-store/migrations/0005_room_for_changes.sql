-- A line that begins with POSTGRES is for that database alone.

-- A row that changes finds room for its next version beside it, and no index is written. Most change within a second of being new.
POSTGRES ALTER TABLE sessions SET (fillfactor = 45);
POSTGRES ALTER TABLE kernels SET (fillfactor = 60);

-- What belongs to a session is written and removed together with it: PostgreSQL need not look for the session for each row again.
POSTGRES ALTER TABLE kernels DROP CONSTRAINT kernels_session_id_fkey;
POSTGRES ALTER TABLE session_events DROP CONSTRAINT session_events_session_id_fkey;
