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
