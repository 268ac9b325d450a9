-- name: original
-- A record as it became a row, with what a correction of it needs.
SELECT r.usage_id, r.user_id, r.organization_id, r.usage_type, (r.quantity / t.unit)::BIGINT AS units,
       r.occurred_at, r.billing_period, r.quota_period, r.pool_period, r.subscription_id, r.plan_tier,
       r.plan_version, r.reversal_of, r.partition, t.decimal_places
FROM usage_keys k
JOIN usage_records r ON r.usage_id = k.usage_id AND r.recorded_at = k.recorded_at
JOIN usage_types t ON t.usage_type = r.usage_type
WHERE k.usage_id = $1;

-- name: hold_original
-- Corrections of one record one after the other: what is left of it is decided by one at a time.
SELECT FROM usage_keys WHERE usage_id = $1 FOR UPDATE;

-- name: is_parked
-- Whether an entry waits for an operator: it begins with its usage id, 32 digits of it.
SELECT EXISTS (SELECT FROM dead_letters
               WHERE status = 'open' AND left(entry ->> 'event', 32) = encode(uuid_send($1::UUID), 'hex'));

-- name: corrected
-- Units of a record's corrections but for one: those that were asked for and not discarded, and those
-- that are rows (after a restore, some whose asking is lost).
SELECT COALESCE(SUM(units), 0)::BIGINT FROM (
    SELECT usage_id, units FROM usage_corrections c
    WHERE original_id = $1 AND (
        EXISTS (SELECT FROM usage_keys k WHERE k.usage_id = c.usage_id)
        OR NOT EXISTS (SELECT FROM dead_letters
                       WHERE status = 'discarded'
                         AND left(entry ->> 'event', 32) = encode(uuid_send(c.usage_id), 'hex')))
    UNION
    SELECT r.usage_id, (r.quantity / t.unit)::BIGINT
    FROM usage_records r JOIN usage_types t USING (usage_type) WHERE r.reversal_of = $1
) counted WHERE usage_id <> $2;

-- name: insert_correction
-- With its first sending: nobody else sends it meanwhile.
INSERT INTO usage_corrections (usage_id, original_id, idempotency_key, fingerprint, units, net_units,
                               recorded_by, next_attempt_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, NOW() + make_interval(secs => $8::INTEGER))
ON CONFLICT DO NOTHING RETURNING usage_id;

-- name: correction
SELECT c.usage_id, c.original_id, c.idempotency_key, c.fingerprint, c.units, c.net_units, c.recorded_by,
       EXISTS (SELECT FROM usage_keys k WHERE k.usage_id = c.usage_id) AS booked,
       (SELECT status FROM dead_letters
        WHERE left(entry ->> 'event', 32) = encode(uuid_send(c.usage_id), 'hex')
        ORDER BY dead_letter_id DESC LIMIT 1) AS letter
FROM usage_corrections c WHERE c.usage_id = $1;

-- name: claim_correction
-- Before it is sent again: from now on whoever sent it first must not withdraw it.
UPDATE usage_corrections SET attempts = attempts + 1,
    next_attempt_at = NOW() + make_interval(secs => $2::INTEGER)
WHERE usage_id = $1 AND done_at IS NULL RETURNING usage_id;

-- name: withdraw_correction
-- Refused when it was first sent, and never sent since: it is nowhere.
DELETE FROM usage_corrections WHERE usage_id = $1 AND attempts = 1 RETURNING usage_id;

-- name: due_corrections
SELECT usage_id FROM usage_corrections
WHERE done_at IS NULL AND next_attempt_at <= NOW() ORDER BY next_attempt_at, usage_id LIMIT $1;

-- name: done_correction
UPDATE usage_corrections SET done_at = NOW() WHERE usage_id = $1;
