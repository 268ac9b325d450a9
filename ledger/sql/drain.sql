-- name: claim_keys
-- Only entries returned here become rows: a usage id counts once for ever. Sorted, because a key
-- that was used in two organisations can meet itself in two partitions' transactions. Of two
-- entries with one id in a batch the first is the one that counts. Times in ms since 1970: making
-- a million datetime objects a minute would take the drain longer than this.
INSERT INTO usage_keys (usage_id, partition, stream_id, recorded_at, fingerprint)
SELECT k.usage_id, $1, k.stream_id, 'epoch'::TIMESTAMPTZ + k.ms * INTERVAL '1 ms', k.fingerprint
FROM unnest($2::UUID[], $3::TEXT[], $4::BIGINT[], $5::BYTEA[]) WITH ORDINALITY
     AS k (usage_id, stream_id, ms, fingerprint, place)
ORDER BY k.usage_id, k.place
ON CONFLICT DO NOTHING
RETURNING stream_id;

-- name: known_keys
SELECT usage_id, partition, stream_id, fingerprint FROM usage_keys WHERE usage_id = ANY($1::UUID[]);

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
INSERT INTO audit_seals (partition, first_position, last_position, records, previous, head, version,
    marks)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

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
