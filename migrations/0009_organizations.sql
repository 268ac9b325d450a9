-- What is known of an organisation besides its subscription.

CREATE TABLE organizations (
    organization_id         UUID PRIMARY KEY,
    version                 BIGINT NOT NULL DEFAULT 1,
    name                    TEXT NOT NULL,
    timezone                TEXT NOT NULL,
    baa                     VARCHAR(10) NOT NULL CHECK (baa IN ('none', 'signed')),
    baa_signed_on           DATE CHECK ((baa_signed_on IS NOT NULL) = (baa = 'signed')),
    retention_class         VARCHAR(30) NOT NULL CHECK (
        retention_class IN ('standard', 'medicare_advantage')),
    legal_hold              BOOLEAN NOT NULL,
    legal_hold_reason       TEXT CHECK ((legal_hold_reason IS NOT NULL) = legal_hold),
    cost_centers            JSONB NOT NULL,
    billing_contact_name    TEXT,
    billing_contact_email   TEXT CHECK (
        (billing_contact_name IS NULL) = (billing_contact_email IS NULL)),
    stripe_customer         TEXT,
    created_at              TIMESTAMPTZ NOT NULL,
    updated_at              TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE organizations IS 'Replaced whole by each change, with an audit event; an organisation that nobody described has no row.';
COMMENT ON COLUMN organizations.timezone IS 'Of subscriptions that begin from now on; those that run keep theirs.';
COMMENT ON COLUMN organizations.billing_contact_email IS 'Personal, as the name: in no log and no audit event.';
COMMENT ON COLUMN organizations.cost_centers IS 'What usage says as cost_center or department, to the line it is reported under.';
CREATE INDEX organizations_newest ON organizations (created_at DESC, organization_id DESC);

CREATE INDEX subscriptions_of_organization ON subscriptions (organization_id)
    WHERE organization_id IS NOT NULL;
CREATE INDEX organization_users_of_organization ON organization_users (organization_id);
