-- name: claim_stripe_reconcile
-- Of all ledgers that see it due, one has it for a while.
INSERT INTO stripe_reconcile AS r (since, next_at, attempts) VALUES ($1, $2, 1)
ON CONFLICT (single) DO UPDATE SET next_at = EXCLUDED.next_at, attempts = r.attempts + 1
WHERE r.next_at <= $1
RETURNING attempts;

-- name: put_off_stripe_reconcile
-- By who has claimed it last.
UPDATE stripe_reconcile SET next_at = $2 WHERE attempts = $1;

-- name: stripe_reconciled
-- What was not compared to the end ($7) takes nothing back of what was found before.
INSERT INTO stripe_reconcile AS r
    (since, next_at, completed_at, missing, extra, different, missed, missed_ever)
VALUES ($1, $2, CASE WHEN $7::BOOLEAN THEN $1::TIMESTAMPTZ END, $3, $4, $5, $6, $6)
ON CONFLICT (single) DO UPDATE
SET next_at = EXCLUDED.next_at,
    attempts = CASE WHEN $7 THEN 0 ELSE r.attempts END,
    completed_at = CASE WHEN $7 THEN $1 ELSE r.completed_at END,
    missing = GREATEST(EXCLUDED.missing, CASE WHEN $7 THEN 0 ELSE r.missing END),
    extra = GREATEST(EXCLUDED.extra, CASE WHEN $7 THEN 0 ELSE r.extra END),
    different = GREATEST(EXCLUDED.different, CASE WHEN $7 THEN 0 ELSE r.different END),
    missed = GREATEST(EXCLUDED.missed, CASE WHEN $7 THEN 0 ELSE r.missed END),
    missed_ever = r.missed_ever + EXCLUDED.missed;

-- name: stripe_reconcile_state
SELECT missing, extra, different, missed, missed_ever,
       GREATEST(0, EXTRACT(EPOCH FROM NOW() - COALESCE(completed_at, since)))::BIGINT AS age_s
FROM stripe_reconcile;

-- name: forget_stripe_seen
TRUNCATE pg_temp.stripe_seen;

-- name: make_stripe_seen
-- Of this session: what was met at Stripe, however much that is.
CREATE TEMP TABLE IF NOT EXISTS stripe_seen (stripe_id TEXT PRIMARY KEY);

-- name: add_stripe_seen
INSERT INTO pg_temp.stripe_seen SELECT UNNEST($1::TEXT[]) ON CONFLICT DO NOTHING;

-- name: invoices_at_stripe
-- Ours by Stripe's ids, our own or our numbers, and how far each has come on its way there.
SELECT i.invoice_id, i.number, i.currency, i.status, i.total, i.amount_paid, i.issued_at,
       i.stripe_invoice_id, i.metered AS is_metered, c.*, EXISTS (
           SELECT FROM stripe_events e
           WHERE e.stripe_invoice_id = i.stripe_invoice_id AND e.done_at IS NULL) AS is_told
FROM invoices i
LEFT JOIN LATERAL (
    SELECT MAX(stripe_id) FILTER (WHERE operation = 'invoice') AS draft,
           MAX(customer) FILTER (WHERE operation = 'invoice') AS customer,
           COUNT(*) FILTER (WHERE done_at IS NULL) AS undone,
           MIN(call_id) FILTER (WHERE done_at IS NULL AND parked IS NOT NULL) AS parked_call,
           BOOL_OR(skipped = 'operator') AS is_skipped
    FROM stripe_calls WHERE invoice_id = i.invoice_id) c ON TRUE
WHERE i.invoice_id IN (
    SELECT invoice_id FROM invoices WHERE stripe_invoice_id = ANY($1::TEXT[])
    UNION SELECT invoice_id FROM invoices WHERE number = ANY($3::TEXT[])
    UNION SELECT UNNEST($2::UUID[]));

-- name: invoices_not_seen
-- Ours that were issued in the days, and with $3 all that are not settled; but for what was met at Stripe.
SELECT i.invoice_id FROM invoices i
WHERE i.number > $4
  AND ((i.issued_at >= $1 AND ($2::TIMESTAMPTZ IS NULL OR i.issued_at < $2))
    OR ($3 AND (i.status = 'open' AND NOT i.metered OR EXISTS (
            SELECT FROM stripe_calls c WHERE c.invoice_id = i.invoice_id AND c.done_at IS NULL))))
  AND NOT EXISTS (SELECT FROM pg_temp.stripe_seen s WHERE s.stripe_id = i.stripe_invoice_id)
ORDER BY i.number LIMIT $5;

-- name: customers_at_stripe
SELECT ours, stripe_id FROM stripe_calls WHERE operation = 'customer' AND ours = ANY($1::UUID[]);

-- name: unreceived_stripe_events
-- Of invoices of ours alone: others are somebody else's.
SELECT t.event_id, i.invoice_id, i.number, i.status,
       EXISTS (SELECT FROM dunning d WHERE d.invoice_id = i.invoice_id) AS is_owed
FROM UNNEST($1::TEXT[], $2::TEXT[]) AS t (event_id, stripe_invoice_id)
JOIN invoices i ON i.stripe_invoice_id = t.stripe_invoice_id
WHERE NOT EXISTS (SELECT FROM stripe_events e WHERE e.event_id = t.event_id);

-- name: want_stripe_look
-- As if something was told of it. Not before somebody's claim ends.
INSERT INTO stripe_looks (stripe_invoice_id, not_before, poll_at) VALUES ($1, $2, $2)
ON CONFLICT (stripe_invoice_id) DO UPDATE SET poll_at = EXCLUDED.poll_at;
