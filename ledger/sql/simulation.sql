-- name: payers
-- In the order of their ids: a page goes on where the last one ended.
SELECT s.* FROM subscriptions_on_plan s
WHERE s.subscription_id > $1
  AND ($2::UUID IS NULL OR (s.scope = 'user' AND s.user_id = $2))
  AND ($3::UUID IS NULL OR (s.scope = 'organization' AND s.organization_id = $3))
  AND ($4::TEXT IS NULL OR (s.plan_tier = $4 AND s.status NOT IN ('canceled', 'expired') AND EXISTS (
      SELECT FROM billing_plans p
      WHERE p.plan_tier = s.plan_tier AND p.version = s.plan_version AND p.subscription_id IS NULL)))
ORDER BY s.subscription_id LIMIT $5;

-- name: stands_of
SELECT subscription_id, effective_at AS since, status, plan_tier, plan_version, anchor, timezone, trial_end
FROM subscription_history WHERE subscription_id = ANY($1::UUID[]) ORDER BY subscription_id, version;

-- name: ends_of
SELECT subscription_id, billing_period, MAX(period_end) AS period_end FROM billing_periods
WHERE subscription_id = ANY($1::UUID[]) AND kind = 'period' AND billing_period >= $2 AND billing_period < $3
GROUP BY subscription_id, billing_period;

-- name: used_by
SELECT subscription_id, billing_period, plan_tier, plan_version, usage_type, SUM(quantity) AS measured,
       SUM(records)::BIGINT AS records
FROM billable_usage
WHERE subscription_id = ANY($1::UUID[]) AND billing_period >= $2 AND billing_period < $3
GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5;

-- name: used_without_subscription
-- Recorded within the month, or up to 36 days late: an index knows a user's records by that time alone.
SELECT billing_period, plan_tier, plan_version, usage_type, SUM(quantity) AS measured, COUNT(*) AS records
FROM usage_records
WHERE user_id = $1 AND subscription_id IS NULL AND billing_period >= $2 AND billing_period < $3
  AND recorded_at >= $2::DATE - INTERVAL '1 day' AND recorded_at < $3::DATE + INTERVAL '70 days'
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4;
