-- name: claim_keys
-- Only ids returned here become rows: a usage id counts once for ever. Sorted, because a key that
-- was used in two organisations can meet itself in two partitions' transactions.
INSERT INTO usage_keys (usage_id, partition, stream_id, recorded_at, fingerprint)
SELECT k.usage_id, $1, k.stream_id, k.recorded_at, k.fingerprint
FROM unnest($2::UUID[], $3::TEXT[], $4::TIMESTAMPTZ[], $5::BYTEA[])
     AS k (usage_id, stream_id, recorded_at, fingerprint)
ORDER BY k.usage_id
ON CONFLICT DO NOTHING
RETURNING usage_id;

-- name: known_keys
SELECT usage_id, partition, stream_id, fingerprint FROM usage_keys WHERE usage_id = ANY($1::UUID[]);

-- name: insert_records
INSERT INTO usage_records (usage_id, user_id, organization_id, usage_type, quantity, recorded_at,
    occurred_at, billing_period, quota_period, pool_period, subscription_id, plan_tier,
    plan_version, used_after, pool_used_after, quota_remaining, quota_exceeded, enforced, metadata, idempotency_key,
    recorded_by, reversal_of, partition, position, stream_id)
SELECT r.usage_id, r.user_id, r.organization_id, r.usage_type, r.units * t.unit, r.recorded_at,
    r.occurred_at, r.billing_period, r.quota_period, r.pool_period, r.subscription_id, r.plan_tier,
    r.plan_version, r.used_after * t.unit, r.pool_used_after * t.unit, r.remaining * t.unit, r.exceeded, r.enforced,
    r.metadata, r.idempotency_key, r.recorded_by, r.reversal_of, $1, r.position, r.stream_id
FROM unnest($2::UUID[], $3::UUID[], $4::UUID[], $5::TEXT[], $6::BIGINT[], $7::TIMESTAMPTZ[],
    $8::TIMESTAMPTZ[], $9::DATE[], $10::TIMESTAMPTZ[], $11::TIMESTAMPTZ[], $12::UUID[], $13::TEXT[],
    $14::INTEGER[], $15::BIGINT[], $16::BIGINT[], $17::BIGINT[], $18::BOOLEAN[], $19::BOOLEAN[],
    $20::JSONB[], $21::TEXT[], $22::TEXT[], $23::UUID[], $24::BIGINT[], $25::TEXT[])
    AS r (usage_id, user_id, organization_id, usage_type, units, recorded_at, occurred_at,
    billing_period, quota_period, pool_period, subscription_id, plan_tier, plan_version, used_after,
    pool_used_after, remaining, exceeded, enforced, metadata, idempotency_key, recorded_by,
    reversal_of, position, stream_id)
JOIN usage_types t ON t.usage_type = r.usage_type;

-- name: add_totals
-- A subject lives in one partition, so no two transactions share a row.
INSERT INTO usage_totals (subject, usage_type, quota_period, quantity, records)
SELECT a.subject, a.usage_type, a.quota_period, a.units * t.unit, a.records
FROM unnest($1::TEXT[], $2::TEXT[], $3::TIMESTAMPTZ[], $4::BIGINT[], $5::BIGINT[])
     AS a (subject, usage_type, quota_period, units, records)
JOIN usage_types t ON t.usage_type = a.usage_type
ON CONFLICT (subject, usage_type, quota_period) DO UPDATE
SET quantity = usage_totals.quantity + EXCLUDED.quantity,
    records = usage_totals.records + EXCLUDED.records;

-- name: insert_seal
INSERT INTO audit_seals (partition, first_position, last_position, records, previous, head)
VALUES ($1, $2, $3, $4, $5, $6);

-- name: insert_refunds
INSERT INTO usage_refunds (usage_id, partition, subject, usage_type, quota_period, units, stream_id)
SELECT r.usage_id, $1, r.subject, r.usage_type, r.quota_period, r.units, r.stream_id
FROM unnest($2::UUID[], $3::TEXT[], $4::TEXT[], $5::TIMESTAMPTZ[], $6::BIGINT[], $7::TEXT[])
     AS r (usage_id, subject, usage_type, quota_period, units, stream_id)
ON CONFLICT DO NOTHING;

-- name: insert_dead_letter
INSERT INTO dead_letters (partition, stream_id, subject, usage_type, quota_period, pool_period,
    units, entry, reason)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT DO NOTHING;

-- name: insert_audit_event
INSERT INTO audit_events (event_type, actor, user_id, organization_id, details, occurred_at)
VALUES ($1, $2, $3, $4, $5, $6);

-- name: ensure_usage_month
SELECT ensure_usage_month($1::DATE);
