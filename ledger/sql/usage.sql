-- name: answers
-- What was answered for usage ids that Redis has forgotten.
SELECT k.usage_id, k.fingerprint, r.recorded_at, (r.quota_remaining / t.unit)::BIGINT AS remaining,
       r.quota_exceeded
FROM usage_keys k
JOIN usage_records r ON r.usage_id = k.usage_id AND r.recorded_at = k.recorded_at
JOIN usage_types t ON t.usage_type = r.usage_type
WHERE k.usage_id = ANY($1::UUID[]);

-- name: usage_position
SELECT recorded_at, usage_id FROM usage_records
WHERE usage_id = $1 AND recorded_at = (SELECT recorded_at FROM usage_keys WHERE usage_id = $1)
  AND ($2::UUID IS NULL OR user_id = $2)
  AND ($3::UUID[] IS NULL OR organization_id = ANY($3));

-- name: list_usage_of_user
-- Newest first; one more than asked tells whether there is another page.
SELECT usage_id, user_id, organization_id, usage_type, quantity, recorded_at, occurred_at,
       billing_period, subscription_id, plan_tier, plan_version, used_after, pool_used_after,
       quota_remaining, quota_exceeded, metadata, idempotency_key, recorded_by, reversal_of
FROM usage_records
WHERE user_id = $1
  AND ($2::UUID[] IS NULL OR organization_id = ANY($2))
  AND ($3::TEXT IS NULL OR usage_type = $3)
  AND ($4::TIMESTAMPTZ IS NULL OR recorded_at >= $4)
  AND ($5::TIMESTAMPTZ IS NULL OR recorded_at < $5)
  AND ($6::TIMESTAMPTZ IS NULL OR (recorded_at, usage_id) < ($6, $7::UUID))
ORDER BY recorded_at DESC, usage_id DESC
LIMIT $8;

-- name: list_usage_of_organizations
-- One short index scan per organisation: with ANY the whole history would be read for a page.
SELECT page.* FROM unnest($2::UUID[]) AS wanted (organization_id)
CROSS JOIN LATERAL (
SELECT usage_id, user_id, organization_id, usage_type, quantity, recorded_at, occurred_at,
       billing_period, subscription_id, plan_tier, plan_version, used_after, pool_used_after,
       quota_remaining, quota_exceeded, metadata, idempotency_key, recorded_by, reversal_of
FROM usage_records
WHERE organization_id = wanted.organization_id
  AND ($1::UUID IS NULL OR user_id = $1)
  AND ($3::TEXT IS NULL OR usage_type = $3)
  AND ($4::TIMESTAMPTZ IS NULL OR recorded_at >= $4)
  AND ($5::TIMESTAMPTZ IS NULL OR recorded_at < $5)
  AND ($6::TIMESTAMPTZ IS NULL OR (recorded_at, usage_id) < ($6, $7::UUID))
ORDER BY recorded_at DESC, usage_id DESC
LIMIT $8) page
ORDER BY recorded_at DESC, usage_id DESC
LIMIT $8;
