-- name: organization
SELECT * FROM organizations WHERE organization_id = $1;

-- name: lock_organization
-- Of two who describe an organisation for the first time, the second sees the first one's row.
SELECT pg_advisory_xact_lock(hashtextextended('organization:' || $1::UUID::TEXT, 0));

-- name: put_organization
INSERT INTO organizations AS o (organization_id, name, timezone, baa, baa_signed_on, retention_class,
    legal_hold, legal_hold_reason, cost_centers, billing_contact_name, billing_contact_email,
    stripe_customer, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)
ON CONFLICT (organization_id) DO UPDATE
SET version = o.version + 1, name = $2, timezone = $3, baa = $4, baa_signed_on = $5,
    retention_class = $6, legal_hold = $7, legal_hold_reason = $8, cost_centers = $9,
    billing_contact_name = $10, billing_contact_email = $11, stripe_customer = $12, updated_at = $13
RETURNING *;

-- name: list_organizations
SELECT * FROM organizations
WHERE $1::TIMESTAMPTZ IS NULL OR (created_at, organization_id) < ($1, $2::UUID)
ORDER BY created_at DESC, organization_id DESC LIMIT $3;

-- name: is_organization_known
SELECT EXISTS (SELECT FROM subscriptions WHERE organization_id = $1)
    OR EXISTS (SELECT FROM organization_users WHERE organization_id = $1)
    OR EXISTS (SELECT FROM usage_records WHERE organization_id = $1)
    OR EXISTS (SELECT FROM purged_usage WHERE organization_id = $1);
