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
-- The newest public one: what was agreed with one customer is nobody else's.
SELECT plan_tier, version, name, currency, "interval", entitlements
FROM billing_plans WHERE plan_tier = $1 AND subscription_id IS NULL ORDER BY version DESC LIMIT 1;

-- name: plan
-- The version that is named, whosever it is; else the newest public one.
SELECT plan_tier, version, name, currency, "interval", base_fee, trial_days, premium, entitlements, prices
FROM billing_plans
WHERE plan_tier = $1 AND CASE WHEN $2::INTEGER IS NULL THEN subscription_id IS NULL ELSE version = $2 END
ORDER BY version DESC LIMIT 1;

-- name: is_public_plan
SELECT EXISTS (SELECT FROM billing_plans
               WHERE plan_tier = $1 AND version = $2 AND subscription_id IS NULL);

-- name: own_plans
-- Versions of a plan that were agreed with one customer, newest first.
SELECT plan_tier, version, name, currency, "interval", base_fee, trial_days, premium, entitlements, prices
FROM billing_plans WHERE subscription_id = $1 AND plan_tier = $2 ORDER BY version DESC;

-- name: plans
-- The newest public version of each.
SELECT DISTINCT ON (plan_tier) plan_tier, version, name, currency, "interval", base_fee, trial_days, premium,
       entitlements, prices
FROM billing_plans WHERE subscription_id IS NULL ORDER BY plan_tier, version DESC;

-- name: lock_catalogue
-- Two new versions of a plan at once would both be the next one.
SELECT pg_advisory_xact_lock(hashtext('catalogue'));

-- name: insert_plan
-- Public versions and those of one customer are numbered in one order: a number names one version.
INSERT INTO billing_plans (plan_tier, version, name, currency, "interval", base_fee, trial_days,
                           premium, entitlements, prices, subscription_id)
SELECT $1::TEXT, COALESCE(MAX(version), 0) + 1, $2, $3, $4, $5, $6, $7, $8, $9, $10
FROM billing_plans WHERE plan_tier = $1::TEXT
RETURNING version;

-- name: list_usage_types
SELECT usage_type, decimal_places, description FROM usage_types ORDER BY usage_type;

-- name: put_usage_type
-- Its decimal places never change: every quantity that was ever counted depends on them.
INSERT INTO usage_types AS t (usage_type, decimal_places, unit, description)
VALUES ($1, $2, ('1e-' || $2::SMALLINT)::NUMERIC, COALESCE($3, ''))
ON CONFLICT (usage_type) DO UPDATE SET description = COALESCE($3, t.description)
WHERE t.decimal_places = EXCLUDED.decimal_places
RETURNING description;
