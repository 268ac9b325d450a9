-- name: organization_of_user
SELECT organization_id FROM subscriptions
WHERE scope = 'user' AND user_id = $1 AND status NOT IN ('canceled', 'expired');

-- name: totals
-- What a quota starts from: recorded units, and open dead letters, which Redis did count.
SELECT usage_type, SUM(units)::BIGINT AS units FROM (
    SELECT t.usage_type, t.quantity / u.unit AS units
    FROM usage_totals t JOIN usage_types u USING (usage_type)
    WHERE t.subject = $1 AND t.quota_period = $2
    UNION ALL
    SELECT usage_type, units FROM dead_letters
    WHERE status = 'open' AND usage_type IS NOT NULL
      AND ((subject = $1 AND quota_period = $2)
        OR (subject LIKE $1 || ':user:%' AND pool_period = $2))
) counted GROUP BY usage_type;

-- name: terms_versions
-- Ended subscriptions count too: the version of an account's terms must never go back. Each by
-- itself: of two changes, the one with the higher version may be committed first.
SELECT
    COALESCE((SELECT MAX(version) FROM subscriptions WHERE scope = 'user' AND user_id = $1), 0) AS own,
    COALESCE((SELECT MAX(version) FROM subscriptions
              WHERE scope = 'organization' AND organization_id = $2), 0) AS of_organization;

-- name: note_organization_user
INSERT INTO organization_users (user_id, organization_id) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: organizations_of_user
SELECT organization_id FROM organization_users WHERE user_id = $1;
