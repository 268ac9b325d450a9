-- From usage to invoices: what is billable, which periods are over, and what was charged for them.

CREATE TABLE billable_usage (
    subscription_id UUID NOT NULL,
    billing_period  DATE NOT NULL,
    plan_tier       VARCHAR(50) NOT NULL,
    plan_version    INTEGER NOT NULL,
    usage_type      VARCHAR(100) NOT NULL,
    partition       SMALLINT NOT NULL,
    quantity        NUMERIC(24, 6) NOT NULL CHECK (quantity <> 'NaN'),
    records         BIGINT NOT NULL,
    PRIMARY KEY (subscription_id, billing_period, plan_tier, plan_version, usage_type, partition)
);
COMMENT ON TABLE billable_usage IS 'Running totals of what is to be invoiced, by the terms it was admitted under.';

INSERT INTO billable_usage
SELECT subscription_id, billing_period, plan_tier, plan_version, usage_type, partition,
       SUM(quantity), COUNT(*)
FROM usage_records WHERE subscription_id IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6;

ALTER TABLE subscriptions ADD COLUMN period_start TIMESTAMPTZ, ADD COLUMN period_end TIMESTAMPTZ,
    ADD COLUMN credit NUMERIC(20, 6) NOT NULL DEFAULT 0 CHECK (credit >= 0 AND credit <> 'NaN');
COMMENT ON COLUMN subscriptions.period_end IS 'When the running period will have to be closed; null where none runs.';
COMMENT ON COLUMN subscriptions.credit IS 'What the next invoice starts with.';
CREATE INDEX subscriptions_to_close ON subscriptions (period_end) WHERE period_end IS NOT NULL;

CREATE TABLE billing_periods (
    billing_period_id   UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    subscription_id     UUID NOT NULL REFERENCES subscriptions,
    kind                VARCHAR(10) NOT NULL CHECK (kind IN ('opening', 'period', 'final')),
    period_start        TIMESTAMPTZ NOT NULL,
    period_end          TIMESTAMPTZ NOT NULL CHECK (period_end >= period_start),
    billing_period      DATE NOT NULL,
    advance             JSONB,
    lines_before        TIMESTAMPTZ NOT NULL,
    outbox_id           BIGINT REFERENCES outbox,
    due_at              TIMESTAMPTZ NOT NULL,
    invoiced_at         TIMESTAMPTZ,
    UNIQUE (subscription_id, kind, period_start, period_end)
);
COMMENT ON TABLE billing_periods IS 'What is to be invoiced, one row an invoice: a beginning, a period that is over, and what came late after the end.';
COMMENT ON COLUMN billing_periods.outbox_id IS 'The close: until it is drained, usage of the period may still be on its way.';
COMMENT ON COLUMN billing_periods.advance IS 'The base fee of the period that follows.';
CREATE INDEX billing_periods_due ON billing_periods (due_at) WHERE invoiced_at IS NULL;

CREATE TABLE invoice_numbers (
    single  BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    last    BIGINT NOT NULL DEFAULT 0
);
COMMENT ON TABLE invoice_numbers IS 'Gapless: taken in the transaction that writes the invoice.';
INSERT INTO invoice_numbers DEFAULT VALUES;

CREATE TABLE invoices (
    invoice_id          UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    billing_period_id   UUID NOT NULL UNIQUE REFERENCES billing_periods,
    number              TEXT UNIQUE,
    subscription_id     UUID NOT NULL REFERENCES subscriptions,
    user_id             UUID NOT NULL,
    organization_id     UUID,
    scope               VARCHAR(20) NOT NULL,
    period_start        TIMESTAMPTZ NOT NULL,
    period_end          TIMESTAMPTZ NOT NULL,
    currency            CHAR(3) NOT NULL,
    status              VARCHAR(20) NOT NULL CHECK (
        status IN ('draft', 'open', 'paid', 'void', 'uncollectible')),
    subtotal            NUMERIC(20, 6) NOT NULL CHECK (subtotal <> 'NaN'),
    total               NUMERIC(20, 6) NOT NULL CHECK (total >= 0 AND total <> 'NaN'),
    amount_paid         NUMERIC(20, 6) NOT NULL DEFAULT 0,
    credited            NUMERIC(20, 6) NOT NULL DEFAULT 0 CHECK (credited BETWEEN 0 AND total),
    parked              TEXT,
    stripe_invoice_id   TEXT,
    issued_at           TIMESTAMPTZ,
    due_at              TIMESTAMPTZ,
    created_at          TIMESTAMPTZ NOT NULL
);
COMMENT ON COLUMN invoices.parked IS 'Why it waits for a person before it is issued.';
CREATE INDEX invoices_newest ON invoices (created_at DESC, period_end DESC, invoice_id DESC);
CREATE INDEX invoices_of_organization ON invoices (organization_id, created_at DESC)
    WHERE organization_id IS NOT NULL;
CREATE INDEX invoices_of_user ON invoices (user_id, created_at DESC);

CREATE TABLE invoice_lines (
    line_id         UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    invoice_id      UUID NOT NULL REFERENCES invoices,
    place           INTEGER NOT NULL,
    kind            VARCHAR(20) NOT NULL,
    usage_type      VARCHAR(100),
    description     TEXT NOT NULL,
    quantity        NUMERIC(24, 6) CHECK (quantity <> 'NaN'),
    unit_amount     NUMERIC(24, 12),
    amount          NUMERIC(20, 6) NOT NULL CHECK (amount <> 'NaN'),
    plan_tier       VARCHAR(50),
    plan_version    INTEGER,
    period_start    TIMESTAMPTZ,
    period_end      TIMESTAMPTZ,
    billing_period  DATE,
    UNIQUE (invoice_id, place)
);

CREATE TABLE invoice_line_usage (
    line_id         UUID NOT NULL REFERENCES invoice_lines,
    partition       SMALLINT NOT NULL,
    after_position  BIGINT NOT NULL,
    through         BIGINT NOT NULL,
    PRIMARY KEY (line_id, partition)
);
COMMENT ON TABLE invoice_line_usage IS 'Which records a line is about: those of its terms and usage type at these places of the partition''s order.';

CREATE TABLE billed_usage (
    subscription_id UUID NOT NULL,
    billing_period  DATE NOT NULL,
    plan_tier       VARCHAR(50) NOT NULL,
    plan_version    INTEGER NOT NULL,
    usage_type      VARCHAR(100) NOT NULL,
    measured        NUMERIC(24, 6) NOT NULL,
    billable        NUMERIC(24, 6) NOT NULL,
    positions       JSONB NOT NULL,
    PRIMARY KEY (subscription_id, billing_period, plan_tier, plan_version, usage_type)
);
COMMENT ON TABLE billed_usage IS 'What has been invoiced so far, and how far in each partition''s order: the rest is adjusted by the next invoice.';
