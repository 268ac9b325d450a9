-- name: insert_plan_migration
-- The same again while one runs is that one.
INSERT INTO plan_migrations (plan_tier, from_version, to_version, moment, preview, actor, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (plan_tier, COALESCE(from_version, 0), to_version, moment, preview) WHERE done_at IS NULL
DO NOTHING RETURNING migration_id;

-- name: running_plan_migration
SELECT migration_id FROM plan_migrations
WHERE plan_tier = $1 AND from_version IS NOT DISTINCT FROM $2 AND to_version = $3 AND moment = $4
  AND preview = $5 AND done_at IS NULL;

-- name: plan_migration
SELECT m.*, p.currency, COALESCE(s.skipped, '{}') AS skipped
FROM plan_migrations m
JOIN billing_plans p ON p.plan_tier = m.plan_tier AND p.version = m.to_version
LEFT JOIN LATERAL (
    SELECT jsonb_object_agg(reason, subscriptions) AS skipped FROM (
        SELECT reason, COUNT(*) AS subscriptions FROM plan_migration_skips
        WHERE migration_id = m.migration_id GROUP BY reason) one) s ON TRUE
WHERE m.plan_tier = $1 AND m.migration_id = $2;

-- name: open_plan_migrations
SELECT migration_id FROM plan_migrations WHERE done_at IS NULL ORDER BY created_at;

-- name: hold_plan_migration
-- Whoever else works on it goes on with it.
SELECT migration_id, plan_tier, from_version, to_version, moment, preview, actor, reached
FROM plan_migrations WHERE migration_id = $1 AND done_at IS NULL FOR UPDATE SKIP LOCKED;

-- name: next_to_migrate
-- In the order of their ids. Without a version to come from: everything but what is public and as new.
SELECT s.subscription_id, s.scope, s.user_id, s.organization_id
FROM subscriptions s
JOIN billing_plans p ON p.plan_tier = s.plan_tier AND p.version = s.plan_version
WHERE s.plan_tier = $1 AND s.status NOT IN ('canceled', 'expired')
  AND ($4::UUID IS NULL OR s.subscription_id > $4)
  AND CASE WHEN $2::INTEGER IS NOT NULL THEN s.plan_version = $2
           ELSE s.plan_version < $3 OR p.subscription_id IS NOT NULL END
ORDER BY s.subscription_id LIMIT 1;

-- name: note_migrated
UPDATE plan_migrations
SET reached = $2, changed = changed + $3, pending = pending + $4, total = total + $5
WHERE migration_id = $1;

-- name: insert_migration_skip
INSERT INTO plan_migration_skips (migration_id, subscription_id, reason) VALUES ($1, $2, $3);

-- name: end_plan_migration
UPDATE plan_migrations SET done_at = $2 WHERE migration_id = $1;
