-- name: plan_stripe_looks
-- Every invoice that is open in Stripe has a row: what is told of it may never arrive.
INSERT INTO stripe_looks (stripe_invoice_id, not_before, poll_at, step_at)
SELECT i.stripe_invoice_id, $1, $2, i.due_at FROM invoices i
WHERE i.status = 'open' AND i.stripe_invoice_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM stripe_looks l WHERE l.stripe_invoice_id = i.stripe_invoice_id)
ON CONFLICT DO NOTHING;

-- name: due_stripe_looks
-- Something was told, nothing was heard for long, or a step is due (by the service's time, $2); but for
-- what is claimed, or was asked in vain just now.
SELECT wanted.stripe_invoice_id FROM (
    SELECT stripe_invoice_id FROM stripe_events WHERE done_at IS NULL
    UNION
    SELECT stripe_invoice_id FROM stripe_looks WHERE poll_at <= $1
    UNION
    SELECT stripe_invoice_id FROM stripe_looks WHERE step_at <= $2
) wanted
LEFT JOIN stripe_looks l USING (stripe_invoice_id)
WHERE l.not_before IS NULL OR l.not_before <= $1
ORDER BY l.not_before NULLS FIRST, wanted.stripe_invoice_id LIMIT $3;

-- name: stripe_steps_wait
-- Not those of which Stripe did not say how they are: they take their time.
SELECT EXISTS (SELECT FROM stripe_looks WHERE step_at <= $1 AND last_error IS NULL);

-- name: overdue_stripe_looks
-- Asked in vain, or by nobody: a look that is made is put off by a day.
SELECT COUNT(*) AS invoices,
       COALESCE(GREATEST(0, EXTRACT(EPOCH FROM NOW() - MIN(poll_at))), 0)::BIGINT AS oldest_s
FROM stripe_looks WHERE poll_at <= NOW();

-- name: claim_stripe_look
-- Of two ledgers that see it due, one has it.
INSERT INTO stripe_looks AS l (stripe_invoice_id, not_before, attempts) VALUES ($1, $3, 1)
ON CONFLICT (stripe_invoice_id) DO UPDATE SET not_before = EXCLUDED.not_before, attempts = l.attempts + 1
WHERE l.not_before <= $2
RETURNING attempts;

-- name: stripe_look_failed
UPDATE stripe_looks SET not_before = $2, last_error = $3 WHERE stripe_invoice_id = $1;

-- name: stripe_looked
UPDATE stripe_looks SET not_before = $2, poll_at = $3, step_at = $4, attempts = 0, last_error = NULL
WHERE stripe_invoice_id = $1;

-- name: forget_stripe_look
DELETE FROM stripe_looks WHERE stripe_invoice_id = $1;
