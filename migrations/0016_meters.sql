-- Usage as events of Stripe's meters instead of invoices (STRIPE_MODE=meters).

CREATE TABLE stripe_mode (
    single  BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    mode    VARCHAR(10) NOT NULL DEFAULT 'invoices' CHECK (mode IN ('invoices', 'meters')),
    since   TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
COMMENT ON TABLE stripe_mode IS 'How usage gets into Stripe from now on. Whoever writes an invoice, or takes usage for a meter, holds the row: none is written under the mode of before.';
INSERT INTO stripe_mode DEFAULT VALUES;

CREATE TABLE metered_usage (
    subscription_id UUID NOT NULL,
    billing_period  DATE NOT NULL,
    usage_type      VARCHAR(100) NOT NULL,
    before          NUMERIC(30) NOT NULL,
    taken           NUMERIC(30) NOT NULL,
    taken_at        TIMESTAMPTZ,
    PRIMARY KEY (subscription_id, billing_period, usage_type)
);
COMMENT ON TABLE metered_usage IS 'How much of billable_usage is in meter events, in units of the usage type; what differs is in the next event.';
COMMENT ON COLUMN metered_usage.before IS 'What was on invoices that are sent, before there were events: in no event, and part of taken.';
COMMENT ON COLUMN metered_usage.taken_at IS 'When the last event was made; null: there is none.';

CREATE TABLE meter_events (
    event_id        UUID PRIMARY KEY,
    subscription_id UUID NOT NULL,
    billing_period  DATE NOT NULL,
    usage_type      VARCHAR(100) NOT NULL,
    payer_id        UUID NOT NULL,
    units           BIGINT NOT NULL CHECK (units <> 0),
    minute          TIMESTAMPTZ NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL,
    UNIQUE (payer_id, usage_type, minute),
    FOREIGN KEY (subscription_id, billing_period, usage_type) REFERENCES metered_usage
);
COMMENT ON TABLE meter_events IS 'What each event says that was used; its call in stripe_calls says whether Stripe has it.';
COMMENT ON COLUMN meter_events.minute IS 'When Stripe counts it: within its billing period, and no other event of the payer and usage type then.';
CREATE INDEX meter_events_of_period ON meter_events (subscription_id, billing_period, usage_type);

ALTER TABLE invoices ADD COLUMN metered BOOLEAN NOT NULL DEFAULT FALSE;
COMMENT ON COLUMN invoices.metered IS 'Its usage is counted by meters of Stripe, which makes an invoice of its own: this one is not sent.';
DROP INDEX invoices_undelivered;
CREATE INDEX invoices_undelivered ON invoices (number)
    WHERE status = 'open' AND stripe_invoice_id IS NULL AND NOT metered;

ALTER TABLE stripe_calls
    DROP CONSTRAINT stripe_calls_operation_check,
    DROP CONSTRAINT stripe_calls_parked_check,
    DROP CONSTRAINT stripe_calls_check,
    ADD CONSTRAINT stripe_calls_operation_check CHECK (
        operation IN ('customer', 'invoice', 'item', 'finalize', 'void', 'credit_note', 'meter_event')),
    ADD CONSTRAINT stripe_calls_parked_check CHECK (
        parked IN ('refused', 'ambiguous', 'not_opaque', 'not_sendable', 'too_old')),
    ADD CONSTRAINT stripe_calls_check CHECK ((invoice_id IS NULL) = (operation IN ('customer', 'meter_event')));

CREATE VIEW metered_totals AS
    SELECT u.subscription_id, u.billing_period, u.usage_type, u.quantity,
           COALESCE(m.before, 0) * t.unit AS invoiced, e.delivered * t.unit AS delivered,
           e.waiting * t.unit AS waiting, e.parked * t.unit AS parked, e.skipped * t.unit AS skipped,
           u.quantity - COALESCE(m.taken, 0) * t.unit AS untaken
    FROM (SELECT subscription_id, billing_period, usage_type, SUM(quantity) AS quantity
          FROM billable_usage GROUP BY 1, 2, 3) u
    JOIN usage_types t USING (usage_type)
    LEFT JOIN metered_usage m USING (subscription_id, billing_period, usage_type)
    CROSS JOIN LATERAL (
        SELECT COALESCE(SUM(units) FILTER (WHERE c.stripe_id IS NOT NULL), 0) AS delivered,
               COALESCE(SUM(units) FILTER (WHERE c.done_at IS NULL AND c.parked IS NULL), 0) AS waiting,
               COALESCE(SUM(units) FILTER (WHERE c.parked IS NOT NULL), 0) AS parked,
               COALESCE(SUM(units) FILTER (WHERE c.skipped IS NOT NULL), 0) AS skipped
        FROM meter_events v JOIN stripe_calls c ON c.operation = 'meter_event' AND c.ours = v.event_id
        WHERE (v.subscription_id, v.billing_period, v.usage_type)
            = (u.subscription_id, u.billing_period, u.usage_type)) e;
COMMENT ON VIEW metered_totals IS 'What was used, and where it is on its way to Stripe''s meters.';
