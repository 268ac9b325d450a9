-- The ledger: what was used, who pays, and how far each partition of the stream has been drained.
-- Quantities are NUMERIC(22,6): every DECIMAL(10,2) of the spec, and every count up to 2^53 - 1,
-- which NUMERIC(20,6) is too small for. Postgres would take NaN for a number greater than 0, so
-- every quantity says that it is not.

CREATE TABLE usage_types (
    usage_type      VARCHAR(50) PRIMARY KEY CHECK (usage_type ~ '^[a-z][a-z0-9_]*$'),
    decimal_places  SMALLINT NOT NULL CHECK (decimal_places BETWEEN 0 AND 6),
    unit            NUMERIC(7, 6) NOT NULL CHECK (unit = ('1e-' || decimal_places)::NUMERIC),
    description     TEXT NOT NULL DEFAULT '',
    created_at      TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

COMMENT ON COLUMN usage_types.unit IS 'One scaled unit, as Redis counts: quantity = units * unit. Never changes.';

CREATE TABLE billing_plans (
    plan_tier       VARCHAR(50) NOT NULL,
    version         INTEGER NOT NULL CHECK (version >= 1),
    name            TEXT NOT NULL,
    currency        CHAR(3) NOT NULL,
    "interval"      VARCHAR(10) NOT NULL CHECK ("interval" IN ('month', 'year')),
    base_fee        NUMERIC(20, 6) NOT NULL CHECK (base_fee >= 0 AND base_fee <> 'NaN'),
    trial_days      INTEGER NOT NULL DEFAULT 0,
    premium         BOOLEAN NOT NULL DEFAULT FALSE,
    entitlements    JSONB NOT NULL,
    prices          JSONB NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    PRIMARY KEY (plan_tier, version)
);
COMMENT ON TABLE billing_plans IS 'The catalogue. A version is never edited; a change is a new version.';

CREATE SEQUENCE subscription_versions;

CREATE TABLE subscriptions (
    subscription_id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id         UUID NOT NULL,
    organization_id UUID,
    scope           VARCHAR(20) NOT NULL DEFAULT 'user' CHECK (scope IN ('user', 'organization')),
    plan_tier       VARCHAR(50) NOT NULL,
    plan_version    INTEGER NOT NULL,
    version         BIGINT NOT NULL DEFAULT nextval('subscription_versions'),
    status          VARCHAR(20) NOT NULL CHECK (
        status IN ('trialing', 'active', 'past_due', 'paused', 'canceled', 'expired')),
    anchor          DATE NOT NULL,
    timezone        TEXT NOT NULL DEFAULT 'UTC',
    trial_end       TIMESTAMPTZ,
    cancel_at       TIMESTAMPTZ,
    pending_change  JSONB,
    created_at      TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    updated_at      TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    FOREIGN KEY (plan_tier, plan_version) REFERENCES billing_plans (plan_tier, version),
    CHECK (scope = 'user' OR organization_id IS NOT NULL)
);
COMMENT ON COLUMN subscriptions.version IS 'From one sequence for all, new with every change: a quota loaded from an older one is refused.';
COMMENT ON COLUMN subscriptions.anchor IS 'Local date that periods are counted from.';
CREATE UNIQUE INDEX subscriptions_one_live_per_user ON subscriptions (user_id)
    WHERE scope = 'user' AND status NOT IN ('canceled', 'expired');
CREATE UNIQUE INDEX subscriptions_one_live_per_organization ON subscriptions (organization_id)
    WHERE scope = 'organization' AND status NOT IN ('canceled', 'expired');

CREATE INDEX subscriptions_terms_of_user ON subscriptions (user_id, version DESC)
    WHERE scope = 'user';
CREATE INDEX subscriptions_terms_of_organization ON subscriptions (organization_id, version DESC)
    WHERE scope = 'organization';

CREATE TABLE usage_keys (
    usage_id        UUID PRIMARY KEY,
    partition       SMALLINT NOT NULL,
    stream_id       TEXT NOT NULL,
    recorded_at     TIMESTAMPTZ NOT NULL,
    fingerprint     BYTEA NOT NULL
);
COMMENT ON TABLE usage_keys IS 'Every unit that ever counted, once: a partitioned table cannot say UNIQUE(usage_id).';

CREATE TABLE usage_records (
    usage_id            UUID NOT NULL DEFAULT gen_random_uuid(),
    user_id             UUID NOT NULL,
    organization_id     UUID,
    usage_type          VARCHAR(100) NOT NULL,
    quantity            NUMERIC(22, 6) NOT NULL CHECK (quantity <> 0 AND quantity <> 'NaN'),
    recorded_at         TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    occurred_at         TIMESTAMPTZ NOT NULL,
    billing_period      DATE NOT NULL,
    quota_period        TIMESTAMPTZ NOT NULL,
    pool_period         TIMESTAMPTZ,
    subscription_id     UUID,
    plan_tier           VARCHAR(50) NOT NULL,
    plan_version        INTEGER NOT NULL,
    used_after          NUMERIC(22, 6) NOT NULL,
    pool_used_after     NUMERIC(22, 6),
    quota_remaining     NUMERIC(22, 6),
    quota_exceeded      BOOLEAN NOT NULL,
    enforced            BOOLEAN NOT NULL,
    metadata            JSONB,
    idempotency_key     TEXT,
    recorded_by         TEXT NOT NULL,
    reversal_of         UUID,
    partition           SMALLINT NOT NULL,
    position            BIGINT NOT NULL,
    stream_id           TEXT NOT NULL,
    PRIMARY KEY (usage_id, recorded_at)
) PARTITION BY RANGE (recorded_at);
COMMENT ON TABLE usage_records IS 'One row per recorded unit of work; rows never change, a correction is a row of its own.';
COMMENT ON COLUMN usage_records.billing_period IS 'Local start date of the period that occurred_at falls into: where it is invoiced.';
COMMENT ON COLUMN usage_records.quota_period IS 'Start of the period open at admission: whose quota it was charged to.';
COMMENT ON COLUMN usage_records.position IS 'Place in the partition''s order; seals cover ranges of it.';
CREATE INDEX usage_records_by_user ON usage_records (user_id, recorded_at DESC, usage_id DESC);
CREATE INDEX usage_records_by_organization
    ON usage_records (organization_id, recorded_at DESC, usage_id DESC) WHERE organization_id IS NOT NULL;
CREATE INDEX usage_records_by_position ON usage_records (partition, position);

CREATE FUNCTION ensure_usage_month(month DATE) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    first DATE := date_trunc('month', month)::DATE;
    name  TEXT := 'usage_records_' || to_char(first, 'YYYY_MM');
BEGIN
    IF to_regclass(name) IS NOT NULL THEN RETURN; END IF;
    -- Two drains may meet here; CREATE TABLE IF NOT EXISTS alone still races.
    PERFORM pg_advisory_xact_lock(hashtext('ensure_usage_month'));
    EXECUTE format(
        'CREATE TABLE IF NOT EXISTS %I PARTITION OF usage_records FOR VALUES FROM (%L) TO (%L)',
        name, to_char(first, 'YYYY-MM-DD') || ' 00:00:00+00',
        to_char(first + INTERVAL '1 month', 'YYYY-MM-DD') || ' 00:00:00+00');
END
$$;

CREATE TABLE usage_totals (
    subject         TEXT NOT NULL,
    usage_type      VARCHAR(100) NOT NULL,
    quota_period    TIMESTAMPTZ NOT NULL,
    quantity        NUMERIC(24, 6) NOT NULL CHECK (quantity <> 'NaN'),
    records         BIGINT NOT NULL,
    PRIMARY KEY (subject, usage_type, quota_period)
);
COMMENT ON TABLE usage_totals IS 'Running totals of a user (user:ID, org:ID:user:ID) or pool (org:ID): what a quota is rebuilt from.';

CREATE TABLE usage_refunds (
    refund_id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    usage_id        UUID NOT NULL,
    partition       SMALLINT NOT NULL,
    subject         TEXT NOT NULL,
    usage_type      VARCHAR(100) NOT NULL,
    quota_period    TIMESTAMPTZ NOT NULL,
    units           BIGINT NOT NULL,
    stream_id       TEXT NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    UNIQUE (partition, stream_id, subject)
);
COMMENT ON TABLE usage_refunds IS 'Units that Redis counted for a repeat whose receipt had expired; the ledger did not.';

CREATE TABLE dead_letters (
    dead_letter_id  BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partition       SMALLINT NOT NULL,
    stream_id       TEXT NOT NULL,
    subject         TEXT,
    usage_type      VARCHAR(100),
    quota_period    TIMESTAMPTZ,
    pool_period     TIMESTAMPTZ,
    units           BIGINT,
    entry           JSONB NOT NULL,
    reason          TEXT NOT NULL,
    status          VARCHAR(20) NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'retried', 'discarded')),
    created_at      TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    UNIQUE (partition, stream_id)
);
CREATE INDEX dead_letters_open ON dead_letters (subject) WHERE status = 'open';
COMMENT ON TABLE dead_letters IS 'Entries the drain could not write. Open ones still count against the quota.';

CREATE TABLE stream_cursor (
    partition           SMALLINT PRIMARY KEY,
    epoch               BIGINT NOT NULL DEFAULT 1,
    replid              TEXT NOT NULL DEFAULT '',
    last_id             TEXT NOT NULL DEFAULT '0-0',
    drained             BIGINT NOT NULL DEFAULT 0,
    trim_id             TEXT NOT NULL DEFAULT '0-0',
    trim_at             TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    refunded_through    BIGINT NOT NULL DEFAULT 0,
    audit_head          BYTEA NOT NULL DEFAULT sha256(''::bytea),
    updated_at          TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
COMMENT ON COLUMN stream_cursor.replid IS 'The Redis server last vouched for; any other must recover first.';
COMMENT ON COLUMN stream_cursor.trim_id IS 'Cursor value of trim_at: may be trimmed once trim_at is older than the retention window.';

CREATE TABLE audit_seals (
    partition       SMALLINT NOT NULL,
    last_position   BIGINT NOT NULL,
    first_position  BIGINT NOT NULL,
    records         INTEGER NOT NULL,
    previous        BYTEA NOT NULL,
    head            BYTEA NOT NULL,
    sealed_at       TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    PRIMARY KEY (partition, last_position)
);
COMMENT ON TABLE audit_seals IS 'head = sha256(previous || canonical bytes of the batch''s records, in order).';

CREATE TABLE audit_events (
    event_id        UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    event_type      VARCHAR(100) NOT NULL,
    actor           TEXT NOT NULL,
    user_id         UUID,
    organization_id UUID,
    details         JSONB NOT NULL DEFAULT '{}',
    occurred_at     TIMESTAMPTZ NOT NULL
);

CREATE VIEW usage_audit_events AS
    SELECT usage_id AS event_id, 'billing_usage_recorded' AS event_type, recorded_by AS actor,
           user_id, organization_id, quantity AS amount, usage_type AS billing_category,
           recorded_at AS occurred_at, partition, position
    FROM usage_records;
COMMENT ON VIEW usage_audit_events IS 'The audit event of a usage record is the record itself, sealed with its batch.';

CREATE TABLE outbox (
    outbox_id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic           VARCHAR(50) NOT NULL,
    payload         JSONB NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    last_error      TEXT,
    created_at      TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    done_at         TIMESTAMPTZ
);
CREATE INDEX outbox_due ON outbox (next_attempt_at) WHERE done_at IS NULL;

CREATE TABLE service_clock (
    single          BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    offset_ms       BIGINT NOT NULL DEFAULT 0 CHECK (offset_ms >= 0)
);
COMMENT ON TABLE service_clock IS 'How far the test clock is ahead of the real one; 0 in production.';
INSERT INTO service_clock DEFAULT VALUES;
