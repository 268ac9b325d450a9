-- name: subscriptions_to_close
SELECT s.subscription_id FROM subscriptions s
WHERE s.period_end <= $1
  AND NOT EXISTS (SELECT FROM billing_failures f
                  WHERE f.subscription_id = s.subscription_id AND f.retry_at > NOW())
ORDER BY s.period_end LIMIT $2;

-- name: insert_billing_period
INSERT INTO billing_periods (subscription_id, kind, period_start, period_end, billing_period, advance,
                             lines_before, outbox_id, due_at, rolls_over)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, COALESCE((
    SELECT entitlements @? '$[*].rollover' FROM billing_plans
    WHERE plan_tier = $10 AND version = $11), FALSE));

-- name: due_billing_periods
-- In their order: an earlier one of the subscription has to be invoiced first, but for what waits for
-- usage that may still come late. What must wait is left out here, or it would fill the batch.
SELECT b.billing_period_id, b.subscription_id
FROM billing_periods b LEFT JOIN outbox o ON o.outbox_id = b.outbox_id
WHERE b.invoiced_at IS NULL AND b.due_at <= $1 AND (b.outbox_id IS NULL OR o.done_at IS NOT NULL)
  AND NOT EXISTS (
    SELECT FROM billing_periods e
    WHERE e.subscription_id = b.subscription_id AND e.invoiced_at IS NULL AND e.kind <> 'final'
      AND (e.period_end, e.kind = 'period') < (b.period_end, b.kind = 'period'))
  AND NOT EXISTS (SELECT FROM billing_failures f
                  WHERE f.subscription_id = b.subscription_id AND f.retry_at > NOW())
ORDER BY b.due_at, b.period_end LIMIT $2;

-- name: hold_billing_period
-- While holding its subscription, where nothing earlier can have been added since it was due.
SELECT b.* FROM billing_periods b WHERE b.billing_period_id = $1 AND b.invoiced_at IS NULL;

-- name: close_billing_period
UPDATE billing_periods SET invoiced_at = $2 WHERE billing_period_id = $1;

-- name: is_awaited
SELECT EXISTS (SELECT FROM billing_periods WHERE subscription_id = $1 AND invoiced_at IS NULL);

-- name: stands
SELECT effective_at AS since, status, plan_tier, plan_version, anchor, timezone, trial_end
FROM subscription_history WHERE subscription_id = $1 ORDER BY version;

-- name: period_ends
SELECT billing_period, ARRAY_AGG(period_end ORDER BY period_end) AS ends FROM billing_periods
WHERE subscription_id = $1 AND kind = 'period' GROUP BY billing_period;

-- name: take_time
-- Rating a great many records takes longer than a transaction may be idle. Only for one that at most holds
-- a subscription: whoever wants that waits so long for a ledger that hangs.
SELECT set_config('idle_in_transaction_session_timeout', '60000', TRUE);
