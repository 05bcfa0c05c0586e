-- Counts what has been placed on an agent under the capacity guard. Who finds it as it was has missed nothing.
ALTER TABLE agents ADD COLUMN placements BIGINT NOT NULL DEFAULT 0;
