-- name: issued_totals
SELECT currency, total FROM issued_totals ORDER BY currency;

-- name: count_parked
SELECT COUNT(*) FROM invoices WHERE parked IS NOT NULL;

-- name: note_billing_failure
-- By the real time, which the test clock does not move: twice as long after each failure, from 2 seconds
-- to about 17 minutes.
INSERT INTO billing_failures AS f (subscription_id, reason, retry_at)
VALUES ($1, $2, NOW() + INTERVAL '2 seconds')
ON CONFLICT (subscription_id) DO UPDATE
SET reason = EXCLUDED.reason, failures = f.failures + 1,
    retry_at = NOW() + INTERVAL '2 seconds' * 2 ^ LEAST(f.failures, 9);

-- name: forget_billing_failure
DELETE FROM billing_failures WHERE subscription_id = $1;

-- name: billing_failures
SELECT COUNT(*) AS subscriptions, COALESCE(EXTRACT(EPOCH FROM NOW() - MIN(since)), 0)::BIGINT AS longest_s,
       COALESCE(ARRAY_AGG(DISTINCT reason), '{}') AS reasons
FROM billing_failures;
