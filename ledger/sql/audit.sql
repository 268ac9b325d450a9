-- name: control_head
SELECT sequence, head FROM audit_chains WHERE chain = 'control';

-- name: lock_control_head
-- One sealer at a time: another goes on with its other work.
SELECT sequence, head FROM audit_chains WHERE chain = 'control' FOR UPDATE SKIP LOCKED;

-- name: set_control_head
UPDATE audit_chains SET sequence = $1, head = $2 WHERE chain = 'control';

-- name: chains
SELECT chain FROM audit_chains ORDER BY chain;

-- name: unsealed_events
SELECT event_id, event_type, actor, user_id, organization_id, details::TEXT AS details, occurred_at,
       noted_at
FROM audit_events WHERE sequence IS NULL ORDER BY noted_at, event_id LIMIT $1;

-- name: seal_events
UPDATE audit_events e SET sequence = s.sequence, version = s.version, previous = s.previous, hash = s.hash
FROM unnest($1::UUID[], $2::BIGINT[], $3::SMALLINT[], $4::BYTEA[], $5::BYTEA[])
     AS s (event_id, sequence, version, previous, hash)
WHERE e.event_id = s.event_id;

-- name: sealed_events
SELECT event_id, event_type, actor, user_id, organization_id, details::TEXT AS details, occurred_at,
       noted_at, sequence, version, previous, hash
FROM audit_events WHERE sequence > $1 ORDER BY sequence;

-- name: event_hash_at
SELECT hash FROM audit_events WHERE sequence = $1;

-- name: event_position
SELECT occurred_at FROM audit_events WHERE event_id = $1;

-- name: list_events
SELECT event_id, event_type, actor, user_id, organization_id, details::TEXT AS details, occurred_at,
       noted_at, sequence, version, previous, hash
FROM audit_events
WHERE ($1::TEXT IS NULL OR event_type = $1) AND ($2::TEXT IS NULL OR actor = $2)
  AND ($3::UUID IS NULL OR user_id = $3) AND ($4::UUID IS NULL OR organization_id = $4)
  AND ($5::TIMESTAMPTZ IS NULL OR occurred_at >= $5) AND ($6::TIMESTAMPTZ IS NULL OR occurred_at < $6)
  AND ($7::TIMESTAMPTZ IS NULL OR (occurred_at, event_id) < ($7, $8::UUID))
ORDER BY occurred_at DESC, event_id DESC LIMIT $9;

-- name: restores_since
-- Restores that were carried out after an instant, and of when their backups were.
SELECT occurred_at, details ->> 'backup_created_at' AS backup_created_at FROM audit_events
WHERE event_type = 'ledger_restored' AND occurred_at > $1 ORDER BY occurred_at;

-- name: audit_state
SELECT (SELECT COUNT(*) FROM audit_events WHERE sequence IS NULL) AS unsealed,
       (SELECT COALESCE(EXTRACT(EPOCH FROM NOW() - MIN(noted_at)), 0)::BIGINT FROM audit_events
        WHERE sequence IS NULL) AS oldest_s,
       COALESCE((SELECT SUM(sequence)::BIGINT FROM audit_chains), 0) AS sequence;

-- name: delivery_state
-- What the audit service does not have, of the chains that are delivered to it.
WITH heads AS (
    SELECT chain, sequence FROM audit_chains
    UNION ALL SELECT 'usage:' || partition, position FROM stream_cursor)
SELECT COALESCE(SUM(GREATEST(0, h.sequence - d.delivered)), 0)::BIGINT AS waiting,
       COALESCE(EXTRACT(EPOCH FROM NOW() - MIN(d.failing_since)), 0)::BIGINT AS failing_s
FROM audit_deliveries d JOIN heads h USING (chain);
