-- name: insert_usage_type
-- Shipped types never overwrite one that an administrator made.
INSERT INTO usage_types (usage_type, decimal_places, unit, description)
VALUES ($1, $2, ('1e-' || $2::SMALLINT)::NUMERIC, $3)
ON CONFLICT DO NOTHING;

-- name: insert_first_plan
INSERT INTO billing_plans (plan_tier, version, name, currency, "interval", base_fee, trial_days,
                           premium, entitlements, prices)
SELECT $1::TEXT, 1, $2, $3, $4, $5, $6, $7, $8, $9
WHERE NOT EXISTS (SELECT FROM billing_plans WHERE plan_tier = $1::TEXT)
ON CONFLICT DO NOTHING;

-- name: usage_types
SELECT usage_type, decimal_places FROM usage_types;

-- name: newest_plan
SELECT plan_tier, version, name, currency, "interval", entitlements
FROM billing_plans WHERE plan_tier = $1 ORDER BY version DESC LIMIT 1;

-- name: plan
SELECT plan_tier, version, name, currency, "interval", base_fee, trial_days, premium, entitlements, prices
FROM billing_plans WHERE plan_tier = $1 AND ($2::INTEGER IS NULL OR version = $2)
ORDER BY version DESC LIMIT 1;

-- name: plans
-- The newest version of each.
SELECT DISTINCT ON (plan_tier) plan_tier, version, name, currency, "interval", base_fee, trial_days, premium,
       entitlements, prices
FROM billing_plans ORDER BY plan_tier, version DESC;

-- name: lock_catalogue
-- Two new versions of a plan at once would both be the next one.
SELECT pg_advisory_xact_lock(hashtext('catalogue'));

-- name: insert_plan
INSERT INTO billing_plans (plan_tier, version, name, currency, "interval", base_fee, trial_days,
                           premium, entitlements, prices)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: list_usage_types
SELECT usage_type, decimal_places, description FROM usage_types ORDER BY usage_type;

-- name: put_usage_type
-- Its decimal places never change: every quantity that was ever counted depends on them.
INSERT INTO usage_types AS t (usage_type, decimal_places, unit, description)
VALUES ($1, $2, ('1e-' || $2::SMALLINT)::NUMERIC, COALESCE($3, ''))
ON CONFLICT (usage_type) DO UPDATE SET description = COALESCE($3, t.description)
WHERE t.decimal_places = EXCLUDED.decimal_places
RETURNING description;
