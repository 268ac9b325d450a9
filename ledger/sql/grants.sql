-- name: leftovers
-- What may be left over for the period that begins at $3, by the plan that was in force when the one
-- before it ended, and was paid for; once the drain has passed that period's close, and what was used in
-- it is final. `granted` is null until it was granted to the subject. In units.
SELECT e ->> 'usage_type' AS usage_type, b.period_start AS before,
       ((e ->> 'limit')::NUMERIC / u.unit)::BIGINT AS "limit",
       ((e -> 'rollover' ->> 'max')::NUMERIC / u.unit)::BIGINT AS most,
       (g.quantity / u.unit)::BIGINT AS granted
FROM billing_periods b
JOIN outbox o ON o.outbox_id = b.outbox_id AND o.done_at IS NOT NULL
CROSS JOIN LATERAL (
    SELECT h.status, h.plan_tier, h.plan_version FROM subscription_history h
    WHERE h.subscription_id = b.subscription_id AND h.effective_at < b.period_end
    ORDER BY h.version DESC LIMIT 1) stood
JOIN billing_plans p ON p.plan_tier = stood.plan_tier AND p.version = stood.plan_version
CROSS JOIN LATERAL jsonb_array_elements(p.entitlements) e
JOIN usage_types u ON u.usage_type = e ->> 'usage_type'
LEFT JOIN grants g ON g.subject = $2 AND g.quota_period = $3 AND g.usage_type = u.usage_type
     AND g.subscription_id = b.subscription_id AND g.origin = 'rollover'
WHERE b.subscription_id = $1 AND b.kind = 'period' AND b.period_end = $3
  AND stood.status IN ('active', 'past_due') AND e ->> 'scope' = $4 AND e ? 'rollover'
  AND NOT EXISTS ( -- it ended there: what was reactivated on the same day has no period before
    SELECT FROM subscription_history h WHERE h.subscription_id = b.subscription_id
      AND h.effective_at = b.period_end AND h.status IN ('canceled', 'expired'));

-- name: insert_grants
-- Who comes second finds it granted.
INSERT INTO grants (subject, quota_period, usage_type, subscription_id, origin, quantity, created_at)
SELECT $1, $2, t.usage_type, $3, 'rollover', n.units * t.unit, $6
FROM unnest($4::TEXT[], $5::BIGINT[]) AS n (usage_type, units)
JOIN usage_types t ON t.usage_type = n.usage_type
ON CONFLICT DO NOTHING
RETURNING usage_type, quantity;

-- name: rolling_periods
SELECT b.billing_period_id, b.subscription_id FROM billing_periods b
JOIN outbox o ON o.outbox_id = b.outbox_id AND o.done_at IS NOT NULL
WHERE b.rolls_over
  AND NOT EXISTS (SELECT FROM billing_failures f
                  WHERE f.subscription_id = b.subscription_id AND f.retry_at > NOW())
ORDER BY b.period_end LIMIT $1;

-- name: stop_rolling
UPDATE billing_periods SET rolls_over = FALSE WHERE billing_period_id = $1 AND rolls_over
RETURNING billing_period_id;
