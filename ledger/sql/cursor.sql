-- name: insert_cursors
WITH looks AS (
    INSERT INTO reconcile_state (partition) SELECT generate_series(0, $1::INTEGER - 1)
    ON CONFLICT DO NOTHING)
INSERT INTO stream_cursor (partition) SELECT generate_series(0, $1::INTEGER - 1) ON CONFLICT DO NOTHING;

-- name: count_cursors
SELECT COUNT(*) FROM stream_cursor;

-- name: cursor
SELECT partition, epoch, replid, last_id, drained, position, revision, audit_head
FROM stream_cursor WHERE partition = $1;

-- name: cursors
SELECT partition, epoch, replid, last_id, drained, position, revision, audit_head
FROM stream_cursor ORDER BY partition;

-- name: lease_cursor
-- The row lock is the drain's lease on the partition: another worker skips it, and it ends with
-- the worker's session.
SELECT partition, epoch, replid, last_id, drained, position, revision, audit_head, trim_id,
       trim_at <= NOW() - make_interval(secs => $2::INTEGER) AS trim_due
FROM stream_cursor WHERE partition = $1 FOR UPDATE SKIP LOCKED;

-- name: limit_wait
SELECT set_config('lock_timeout', $1, TRUE);

-- name: hold_cursor
-- Waits for the row: what is done to a partition's counts as a whole must not skip it.
SELECT partition, epoch, replid, last_id, drained, position, revision, audit_head
FROM stream_cursor WHERE partition = $1 FOR UPDATE;

-- name: end_frozen
-- Whoever has a partition and is waited for by Postgres in the middle of a statement: between its
-- parts, or while it sends rows. No timeout of Postgres's own ends that.
SELECT COUNT(pg_terminate_backend(a.pid)) FROM pg_stat_activity a
JOIN pg_locks l ON l.pid = a.pid AND l.database = a.datid
WHERE l.relation = 'stream_cursor'::REGCLASS AND l.mode = 'RowShareLock' AND l.granted
  AND a.usename = CURRENT_USER AND a.state = 'active' AND a.wait_event = 'ClientRead'
  AND a.state_change < clock_timestamp() - make_interval(secs => $1::INTEGER);

-- name: vouch
UPDATE stream_cursor SET epoch = $2, replid = $3, updated_at = NOW() WHERE partition = $1;

-- name: advance_cursor
UPDATE stream_cursor
SET last_id = $2, drained = $3, position = $4, audit_head = $5, updated_at = NOW(),
    trim_id = CASE WHEN $6::BOOLEAN THEN $2 ELSE trim_id END,
    trim_at = CASE WHEN $6::BOOLEAN THEN NOW() ELSE trim_at END
WHERE partition = $1;

-- name: bump_revision
UPDATE stream_cursor SET revision = revision + 1 WHERE partition = $1 RETURNING revision;

-- name: settle
-- A dead letter was settled: what it became in the partition's order, but nothing was drained.
UPDATE stream_cursor
SET position = $2, audit_head = $3, revision = revision + 1, updated_at = NOW()
WHERE partition = $1;

-- name: skip_gap
UPDATE stream_cursor SET last_id = $2, drained = $3, updated_at = NOW() WHERE partition = $1;

-- name: clock_offset
SELECT offset_ms FROM service_clock;

-- name: advance_clock
UPDATE service_clock SET offset_ms = $1 WHERE offset_ms <= $1 RETURNING offset_ms;
