-- A record booked from a dead letter has a place in its partition's order, but no entry that was
-- drained for it: places are counted by themselves.

ALTER TABLE stream_cursor ADD COLUMN position BIGINT NOT NULL DEFAULT 0;
UPDATE stream_cursor c SET position = COALESCE(
    (SELECT MAX(last_position) FROM audit_seals s WHERE s.partition = c.partition), 0);
COMMENT ON COLUMN stream_cursor.position IS 'Place of the last record in the partition''s order; without gaps.';
