-- A change of the status alone touches no index: PostgreSQL then keeps the new version of the row beside the old one. Lists of
-- statuses are lists of living sessions, of which there are few.
DROP INDEX sessions_status;
CREATE INDEX sessions_living ON sessions (id) WHERE living;
CREATE INDEX sessions_name ON sessions (access_key, name);
