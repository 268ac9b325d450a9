-- name: audit_heads
SELECT partition, audit_head FROM stream_cursor ORDER BY partition;

-- name: seals
SELECT first_position, last_position, records, previous, head, kept, kept_head
FROM audit_seals WHERE partition = $1 AND last_position > $2 ORDER BY last_position;

-- name: sealed_records
SELECT position, usage_id, user_id, organization_id, usage_type, quantity, recorded_at, occurred_at,
       billing_period, quota_period, pool_period, subscription_id, plan_tier, plan_version,
       recorded_by, reversal_of
FROM usage_records WHERE partition = $1 AND position > $2 ORDER BY position;
