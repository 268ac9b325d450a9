-- Months of usage records that were kept long enough: written to an archive, then dropped. What agreed
-- with their rows goes on to agree, with the sums that are kept of them.

CREATE TABLE purges (
    month       DATE PRIMARY KEY CHECK (EXTRACT(DAY FROM month) = 1),
    records     BIGINT NOT NULL,
    archive     TEXT NOT NULL,
    sha256      TEXT NOT NULL,
    actor       TEXT NOT NULL,
    purged_at   TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE purges IS 'Months whose usage records were purged, and the archive that has them.';
COMMENT ON COLUMN purges.sha256 IS 'Of the archive''s manifest, which names the hash of its records.';

CREATE TABLE purged_usage (
    month           DATE NOT NULL REFERENCES purges,
    partition       SMALLINT NOT NULL,
    user_id         UUID NOT NULL,
    organization_id UUID,
    usage_type      VARCHAR(100) NOT NULL,
    quota_period    TIMESTAMPTZ NOT NULL,
    pool_period     TIMESTAMPTZ,
    subscription_id UUID,
    billing_period  DATE NOT NULL,
    plan_tier       VARCHAR(50) NOT NULL,
    plan_version    INTEGER NOT NULL,
    quantity        NUMERIC(24, 6) NOT NULL CHECK (quantity <> 'NaN'),
    records         BIGINT NOT NULL
);
COMMENT ON TABLE purged_usage IS 'Sums of the records that were purged: totals, invoices and seals are compared with rows and these.';
CREATE INDEX purged_usage_of_month ON purged_usage (month);
CREATE INDEX purged_usage_of_user ON purged_usage (user_id);
CREATE INDEX purged_usage_of_organization ON purged_usage (organization_id) WHERE organization_id IS NOT NULL;
CREATE INDEX purged_usage_of_subscription ON purged_usage (subscription_id, billing_period)
    WHERE subscription_id IS NOT NULL;

CREATE VIEW counted_usage AS
    SELECT partition, user_id, organization_id, usage_type, quota_period, pool_period, subscription_id,
           billing_period, plan_tier, plan_version, quantity, 1::BIGINT AS records
    FROM usage_records
    UNION ALL
    SELECT partition, user_id, organization_id, usage_type, quota_period, pool_period, subscription_id,
           billing_period, plan_tier, plan_version, quantity, records
    FROM purged_usage;
COMMENT ON VIEW counted_usage IS 'Everything that was ever recorded: the rows, and the sums of those that were purged.';

ALTER TABLE audit_seals ADD COLUMN kept INTEGER CHECK (kept BETWEEN 0 AND records),
    ADD COLUMN kept_head BYTEA;
COMMENT ON COLUMN audit_seals.kept IS 'How many of its records were left by a purge; null: all. The seal itself stays, as an anchor of the next.';
COMMENT ON COLUMN audit_seals.kept_head IS 'sha256(head || canonical bytes of the records that were left).';

CREATE FUNCTION usage_month(month DATE) RETURNS TEXT LANGUAGE SQL IMMUTABLE AS $$
    SELECT 'usage_records_' || to_char($1, 'YYYY_MM')
$$;

CREATE FUNCTION hold_usage_month(month DATE) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    -- What is summed is what will be dropped: no row comes in between.
    EXECUTE format('LOCK TABLE %I IN SHARE MODE', usage_month(month));
END
$$;

CREATE FUNCTION drop_usage_month(month DATE) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP TABLE %I', usage_month(month));
END
$$;

CREATE TABLE pseudonyms (
    user_id     UUID PRIMARY KEY,
    pseudonym   UUID NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    made_at     TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE pseudonyms IS 'Users who asked not to be told apart: what is exported names them so.';
