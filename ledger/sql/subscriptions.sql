-- name: live_subscriptions
-- The user's own and the organisation's, with the plan version each is on. The newest ended one
-- is not needed: canceled and expired fall back to the default tier.
SELECT s.* FROM subscriptions_on_plan s
WHERE s.status NOT IN ('canceled', 'expired')
  AND ((s.scope = 'user' AND s.user_id = $1) OR (s.scope = 'organization' AND s.organization_id = $2));

-- name: hold_subscription
-- The live one, else the newest ended one (to be reactivated). Not by the view: the plan's row would be
-- locked as well, and with it everybody on that plan. NO KEY: a quota that is granted something names the
-- subscription, and must not wait.
SELECT s.*, p."interval", p.entitlements, own_versions(s)
FROM subscriptions s
JOIN billing_plans p ON p.plan_tier = s.plan_tier AND p.version = s.plan_version
WHERE s.scope = $1 AND CASE WHEN $1 = 'user' THEN s.user_id = $2 ELSE s.organization_id = $3 END
ORDER BY s.status IN ('canceled', 'expired'), s.version DESC LIMIT 1
FOR NO KEY UPDATE OF s;

-- name: hold_subscription_by_id
-- Whoever else works on it (a change, another ledger) is waited for by nobody: next time.
SELECT s.*, p."interval", p.entitlements, own_versions(s)
FROM subscriptions s
JOIN billing_plans p ON p.plan_tier = s.plan_tier AND p.version = s.plan_version
WHERE s.subscription_id = $1 FOR NO KEY UPDATE OF s SKIP LOCKED;

-- name: subscription_by_id
SELECT * FROM subscriptions_on_plan WHERE subscription_id = $1;

-- name: newest_subscription
SELECT s.* FROM subscriptions_on_plan s
WHERE s.scope = $1 AND CASE WHEN $1 = 'user' THEN s.user_id = $2 ELSE s.organization_id = $3 END
ORDER BY s.version DESC LIMIT 1;

-- name: insert_subscription
INSERT INTO subscriptions (subscription_id, user_id, organization_id, scope, plan_tier, plan_version,
    status, anchor, timezone, trial_end, advance, period_start, period_end, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14)
RETURNING version;

-- name: update_subscription
UPDATE subscriptions
SET version = nextval('subscription_versions'), plan_tier = $2, plan_version = $3, status = $4,
    anchor = $5, trial_end = $6, cancel_at = $7, pending_change = $8, advance = $9,
    period_start = $10, period_end = $11, updated_at = $12
WHERE subscription_id = $1 RETURNING version;

-- name: renew_subscription
-- The same terms under a new version: quotas of the one before are loaded anew.
UPDATE subscriptions SET version = nextval('subscription_versions') WHERE subscription_id = $1
RETURNING version;

-- name: insert_history
INSERT INTO subscription_history (subscription_id, version, action, actor, occurred_at, effective_at,
    status, plan_tier, plan_version, anchor, timezone, trial_end, cancel_at, pending_change)
SELECT subscription_id, version, $2, $3, $4, $5, status, plan_tier, plan_version, anchor, timezone,
       trial_end, cancel_at, pending_change
FROM subscriptions WHERE subscription_id = $1;

-- name: subscription_history
SELECT h.version, h.action, h.actor, h.occurred_at, h.effective_at, h.status, h.plan_tier,
       h.plan_version, h.trial_end, h.cancel_at, h.pending_change
FROM subscription_history h
WHERE h.subscription_id = $1 AND ($2::BIGINT IS NULL OR h.version < $2)
ORDER BY h.version DESC LIMIT $3;

-- name: insert_pending_line
INSERT INTO pending_lines (subscription_id, line, created_at) VALUES ($1, $2, $3);

-- name: list_subscriptions
SELECT s.* FROM subscriptions_on_plan s
WHERE ($1::UUID IS NULL OR s.organization_id = $1) AND ($2::TEXT IS NULL OR s.status = $2)
  AND ($3::TIMESTAMPTZ IS NULL OR (s.created_at, s.subscription_id) < ($3, $4::UUID))
ORDER BY s.created_at DESC, s.subscription_id DESC LIMIT $5;

-- name: subscription_position
SELECT created_at FROM subscriptions WHERE subscription_id = $1;

-- name: wait_for_subscription
-- As a change: an invoice whose snapshot is older cannot hold the row afterwards, and is made anew.
UPDATE subscriptions SET credit = credit WHERE subscription_id = $1;

-- name: wait_for_subscriptions
-- In one order. Whoever waits in the query that joins the plan finds none where the plan has changed
-- meanwhile: the row is read anew then, and what it is joined with is not.
SELECT FROM subscriptions s
WHERE s.scope = $1 AND CASE WHEN $1 = 'user' THEN s.user_id = $2 ELSE s.organization_id = $3 END
ORDER BY s.subscription_id FOR NO KEY UPDATE;
