-- name: usage_heads
SELECT partition, position, audit_head AS head FROM stream_cursor ORDER BY partition;

-- name: seals
SELECT first_position, last_position, records, previous, head, version, marks, kept, kept_head
FROM audit_seals WHERE partition = $1 AND last_position > $2 ORDER BY last_position;

-- name: sealed_records
SELECT position, stream_id, usage_id, user_id, organization_id, usage_type, quantity, recorded_at,
       occurred_at, billing_period, quota_period, pool_period, subscription_id, plan_tier, plan_version,
       used_after, pool_used_after, quota_remaining, quota_exceeded, enforced, metadata,
       idempotency_key, recorded_by, reversal_of
FROM usage_records WHERE partition = $1 AND position > $2 ORDER BY position;

-- name: seal_before
-- The newest seal that ends so many places before the head of a partition's chain, or earlier.
SELECT last_position AS position, head FROM audit_seals
WHERE partition = $1 AND last_position <= (SELECT position FROM stream_cursor WHERE partition = $1) - $2
ORDER BY last_position DESC LIMIT 1;

-- name: seal_at
SELECT head FROM audit_seals WHERE partition = $1 AND last_position = $2;

-- name: stray_records
-- Rows that are in no partition's chain.
SELECT partition, position, usage_id FROM usage_records
WHERE position < 1 OR partition NOT IN (SELECT partition FROM stream_cursor)
ORDER BY partition, position LIMIT $1;

-- name: stray_seals
SELECT DISTINCT partition FROM audit_seals
WHERE partition NOT IN (SELECT partition FROM stream_cursor) ORDER BY partition LIMIT $1;
