-- name: begin_deliveries
INSERT INTO audit_deliveries (chain)
SELECT chain FROM audit_chains UNION ALL SELECT 'usage:' || partition FROM stream_cursor
ON CONFLICT DO NOTHING;

-- name: claim_delivery
-- A chain of which the audit service lacks something; one ledger at a time sends of it.
WITH heads AS (
    SELECT chain, sequence FROM audit_chains
    UNION ALL SELECT 'usage:' || partition, position FROM stream_cursor)
UPDATE audit_deliveries d SET attempts = d.attempts + 1, not_before = NOW() + $1::INTEGER * INTERVAL '1 second'
FROM (
    SELECT d.chain FROM audit_deliveries d JOIN heads h USING (chain)
    WHERE h.sequence > d.delivered AND d.not_before <= NOW()
    ORDER BY d.not_before, d.chain LIMIT 1 FOR UPDATE OF d SKIP LOCKED) due
WHERE d.chain = due.chain
RETURNING d.chain, d.delivered, d.attempts;

-- name: note_delivered
UPDATE audit_deliveries
SET delivered = GREATEST(delivered, $2), attempts = 0, not_before = NOW(), failing_since = NULL,
    last_error = NULL
WHERE chain = $1;

-- name: note_undelivered
UPDATE audit_deliveries
SET not_before = NOW() + $2::INTEGER * INTERVAL '1 second',
    failing_since = COALESCE(failing_since, NOW()), last_error = $3
WHERE chain = $1;

-- name: purged_through
-- Where to go on from when of the next records none is there, as all were purged; else nothing.
SELECT LEAST($2::BIGINT + $3::BIGINT, MAX(last_position)) FROM audit_seals
WHERE partition = $1 AND last_position > $2 AND first_position <= $2::BIGINT + $3::BIGINT
HAVING bool_and(kept IS NOT NULL);

-- name: usage_events
SELECT position, usage_id, user_id, organization_id, usage_type, quantity, recorded_at, recorded_by
FROM usage_records WHERE partition = $1 AND position > $2 AND position <= $2 + $3 ORDER BY position;
