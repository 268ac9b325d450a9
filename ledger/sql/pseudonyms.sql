-- name: has_live_subscription
SELECT EXISTS (SELECT FROM subscriptions
               WHERE user_id = $1 AND scope = 'user' AND status NOT IN ('canceled', 'expired'));

-- name: insert_pseudonym
INSERT INTO pseudonyms (user_id, made_at) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING pseudonym;

-- name: pseudonym
SELECT pseudonym FROM pseudonyms WHERE user_id = $1;

-- name: forget_memberships
WITH gone AS (DELETE FROM organization_users WHERE user_id = $1 RETURNING organization_id)
SELECT COUNT(*) FROM gone;

-- name: is_user_known
SELECT EXISTS (SELECT FROM usage_records WHERE user_id = $1)
    OR EXISTS (SELECT FROM purged_usage WHERE user_id = $1)
    OR EXISTS (SELECT FROM subscriptions WHERE user_id = $1)
    OR EXISTS (SELECT FROM organization_users WHERE user_id = $1);
