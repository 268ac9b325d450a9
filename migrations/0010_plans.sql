-- Plans agreed with one customer, plans that subscriptions are brought up to, and what is left over of
-- a period.

ALTER TABLE billing_plans ADD COLUMN subscription_id UUID
    REFERENCES subscriptions DEFERRABLE INITIALLY DEFERRED;
COMMENT ON COLUMN billing_plans.subscription_id IS 'Whose own version it is, agreed with one customer; null: public.';
CREATE INDEX billing_plans_of_subscription ON billing_plans (subscription_id)
    WHERE subscription_id IS NOT NULL;

CREATE FUNCTION own_versions(subscription subscriptions) RETURNS TEXT[] LANGUAGE SQL STABLE AS $$
    SELECT ARRAY(SELECT plan_tier || ' ' || version FROM billing_plans
                 WHERE subscription_id = (subscription).subscription_id)
$$;
COMMENT ON FUNCTION own_versions IS 'Tier and number of the plan versions that were agreed with one customer.';

CREATE TABLE plan_migrations (
    migration_id    UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    plan_tier       VARCHAR(50) NOT NULL,
    from_version    INTEGER,
    to_version      INTEGER NOT NULL,
    moment          VARCHAR(10) NOT NULL CHECK (moment IN ('now', 'period_end')),
    preview         BOOLEAN NOT NULL,
    actor           TEXT NOT NULL,
    reached         UUID,
    changed         INTEGER NOT NULL DEFAULT 0,
    pending         INTEGER NOT NULL DEFAULT 0,
    total           NUMERIC(20, 6) NOT NULL DEFAULT 0 CHECK (total <> 'NaN'),
    created_at      TIMESTAMPTZ NOT NULL,
    done_at         TIMESTAMPTZ,
    FOREIGN KEY (plan_tier, to_version) REFERENCES billing_plans (plan_tier, version)
);
COMMENT ON TABLE plan_migrations IS 'A plan version that subscriptions of a tier are brought up to, worked off by the ledger; with preview, only counted.';
COMMENT ON COLUMN plan_migrations.from_version IS 'Those on this version; null: on any older one.';
COMMENT ON COLUMN plan_migrations.reached IS 'The last subscription it has come to, in the order of their ids.';
CREATE UNIQUE INDEX plan_migrations_running
    ON plan_migrations (plan_tier, COALESCE(from_version, 0), to_version, moment, preview)
    WHERE done_at IS NULL;

CREATE TABLE plan_migration_skips (
    migration_id    UUID NOT NULL REFERENCES plan_migrations,
    subscription_id UUID NOT NULL REFERENCES subscriptions,
    reason          TEXT NOT NULL,
    PRIMARY KEY (migration_id, subscription_id)
);
COMMENT ON TABLE plan_migration_skips IS 'Subscriptions that a migration left as they were, and why.';

CREATE TABLE grants (
    subject         TEXT NOT NULL,
    quota_period    TIMESTAMPTZ NOT NULL,
    usage_type      VARCHAR(100) NOT NULL,
    subscription_id UUID NOT NULL REFERENCES subscriptions,
    origin          VARCHAR(20) NOT NULL CHECK (origin IN ('rollover')),
    quantity        NUMERIC(22, 6) NOT NULL CHECK (quantity >= 0 AND quantity <> 'NaN'),
    created_at      TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (subject, quota_period, usage_type, subscription_id, origin)
);
COMMENT ON TABLE grants IS 'What a quota has beyond its plan''s limit in one period. Rows never change; 0: it was looked at, and nothing was left over.';

CREATE FUNCTION granted(subject TEXT, usage_type TEXT, quota_period TIMESTAMPTZ) RETURNS NUMERIC
LANGUAGE SQL STABLE AS $$
    SELECT COALESCE(SUM(g.quantity), 0) FROM grants g
    WHERE g.subject = $1 AND g.usage_type = $2 AND g.quota_period = $3
$$;
COMMENT ON FUNCTION granted IS 'What a quota has beyond its plan''s limit in a period.';

ALTER TABLE billing_periods ADD COLUMN rolls_over BOOLEAN NOT NULL DEFAULT FALSE;
COMMENT ON COLUMN billing_periods.rolls_over IS 'Quotas of the next period have to be loaded anew once the close is drained: something may be left over.';
CREATE INDEX billing_periods_rolling ON billing_periods (period_end) WHERE rolls_over;
