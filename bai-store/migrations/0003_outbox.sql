-- The queue of events to publish: an entry comes and goes without the event being written again.
CREATE TABLE outbox (
    seq ROW_NUMBER
);
INSERT INTO outbox (seq) SELECT seq FROM session_events WHERE NOT published;
DROP INDEX session_events_unpublished;
ALTER TABLE session_events DROP COLUMN published;
