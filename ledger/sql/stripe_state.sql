-- name: count_stripe_outcome
INSERT INTO stripe_outcomes AS o VALUES ($1, 1)
ON CONFLICT (outcome) DO UPDATE SET calls = o.calls + 1;

-- name: stripe_stopped_until
SELECT until FROM stripe_stop;

-- name: stop_stripe
-- Whether it went on until now: only the first refusal is an alarm.
INSERT INTO stripe_stop AS s (since, until) VALUES ($1, $2)
ON CONFLICT (single) DO UPDATE SET until = EXCLUDED.until
RETURNING s.since = $1 AS is_new;

-- name: resume_stripe
DELETE FROM stripe_stop RETURNING since;

-- name: resume_stripe_unless_refused
DELETE FROM stripe_stop
WHERE NOT EXISTS (SELECT FROM stripe_calls WHERE done_at IS NULL AND last_error = 'key_refused')
RETURNING since;

-- name: stripe_state
-- What waits is told of whether anybody delivers or not: invoices that are open here and not there, and
-- those that were voided here since; and events of usage.
WITH waiting AS (
    SELECT i.issued_at AS since FROM invoices i
    WHERE i.status = 'open' AND i.stripe_invoice_id IS NULL AND NOT i.metered
      AND NOT EXISTS (SELECT FROM stripe_calls c
                      WHERE c.operation = 'finalize' AND c.ours = i.invoice_id AND c.done_at IS NOT NULL)
      AND NOT EXISTS (SELECT FROM stripe_calls c
                      WHERE c.operation = 'invoice' AND c.ours = i.invoice_id AND c.skipped IS NOT NULL)
    UNION ALL
    SELECT created_at FROM stripe_calls WHERE operation IN ('void', 'meter_event') AND done_at IS NULL)
SELECT COUNT(*) AS waiting,
       COALESCE(GREATEST(0, EXTRACT(EPOCH FROM NOW() - MIN(since))), 0)::BIGINT AS oldest_s,
       (SELECT COUNT(*) FROM stripe_calls WHERE done_at IS NULL AND parked IS NOT NULL) AS parked,
       EXISTS (SELECT FROM stripe_stop) AS is_stopped
FROM waiting;

-- name: stripe_outcomes
SELECT outcome, calls FROM stripe_outcomes ORDER BY outcome;
