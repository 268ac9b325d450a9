-- name: insert_outbox
INSERT INTO outbox (topic, payload) VALUES ($1, $2) RETURNING outbox_id;

-- name: due_outbox
-- Longest due first: what is tried in vain comes after the others the next time.
SELECT outbox_id FROM outbox
WHERE topic = $1 AND done_at IS NULL AND next_attempt_at <= NOW()
ORDER BY next_attempt_at, outbox_id LIMIT $2;

-- name: claim_outbox
-- Committed before the work is done: whoever else looks meanwhile leaves it alone until it is due
-- again, and a worker that dies has it done by another.
UPDATE outbox SET attempts = attempts + 1, next_attempt_at = NOW() + make_interval(secs => $2::INTEGER)
WHERE outbox_id = (SELECT outbox_id FROM outbox
                   WHERE outbox_id = $1 AND done_at IS NULL AND next_attempt_at <= NOW()
                   FOR UPDATE SKIP LOCKED)
RETURNING payload;

-- name: explain_outbox
UPDATE outbox SET last_error = $2 WHERE outbox_id = $1;

-- name: overdue_outbox
SELECT COUNT(*) AS rows, COALESCE(EXTRACT(EPOCH FROM NOW() - MIN(created_at)), 0)::BIGINT AS oldest_s,
       (ARRAY_AGG(last_error ORDER BY outbox_id))[1] AS reason
FROM outbox WHERE done_at IS NULL AND created_at < NOW() - make_interval(secs => $1::INTEGER);

-- name: await_outbox
UPDATE outbox SET awaits = $2 WHERE outbox_id = $1 AND done_at IS NULL;

-- name: drained_outbox
-- Sent twice, it is drained twice: the second finds nothing left.
UPDATE outbox SET awaits = array_remove(awaits, $2),
    done_at = CASE WHEN array_remove(awaits, $2) = '{}' THEN NOW() END
WHERE outbox_id = $1 AND done_at IS NULL;

-- name: done_outbox_after
UPDATE outbox SET done_at = CASE WHEN attempts >= $2 THEN NOW() END WHERE outbox_id = $1;
