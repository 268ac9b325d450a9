-- What Stripe tells of invoices, and what becomes of those that are not paid.

CREATE TABLE stripe_events (
    event_id            TEXT PRIMARY KEY,
    type                VARCHAR(50) NOT NULL,
    stripe_invoice_id   TEXT NOT NULL,
    created_at          TIMESTAMPTZ NOT NULL,
    received_at         TIMESTAMPTZ NOT NULL,
    invoice_id          UUID REFERENCES invoices,
    done_at             TIMESTAMPTZ
);
COMMENT ON TABLE stripe_events IS 'What Stripe has told, each event once; done in the transaction of its effect.';
COMMENT ON COLUMN stripe_events.created_at IS 'When it happened, by Stripe''s time.';
COMMENT ON COLUMN stripe_events.invoice_id IS 'Which invoice of ours it was about; null once done: of none.';
CREATE INDEX stripe_events_waiting ON stripe_events (stripe_invoice_id, received_at) WHERE done_at IS NULL;
CREATE INDEX stripe_events_done ON stripe_events (done_at) WHERE done_at IS NOT NULL;

CREATE TABLE stripe_looks (
    stripe_invoice_id   TEXT PRIMARY KEY,
    not_before          TIMESTAMPTZ NOT NULL,
    poll_at             TIMESTAMPTZ,
    step_at             TIMESTAMPTZ,
    attempts            INTEGER NOT NULL DEFAULT 0,
    last_error          TEXT
);
COMMENT ON TABLE stripe_looks IS 'Invoices that are open in Stripe, and when each may and must be looked at there.';
COMMENT ON COLUMN stripe_looks.not_before IS 'Claimed by somebody, or Stripe did not answer: left alone until then.';
COMMENT ON COLUMN stripe_looks.poll_at IS 'When it is looked at though nothing was told: events get lost.';
COMMENT ON COLUMN stripe_looks.step_at IS 'When it becomes overdue, or the next step of its dunning is due; by the service''s time.';
CREATE INDEX stripe_looks_poll ON stripe_looks (poll_at);
CREATE INDEX stripe_looks_step ON stripe_looks (step_at);

CREATE TABLE dunning (
    invoice_id      UUID PRIMARY KEY REFERENCES invoices,
    subscription_id UUID NOT NULL REFERENCES subscriptions,
    owed_since      TIMESTAMPTZ NOT NULL,
    step            VARCHAR(20) NOT NULL CHECK (step IN ('owed', 'blocked', 'given_up')),
    step_since      TIMESTAMPTZ NOT NULL,
    ended_at        TIMESTAMPTZ
);
COMMENT ON TABLE dunning IS 'Invoices whose payment failed or is overdue, and how far each has come; ended once nothing is owed, or hoped for.';
CREATE INDEX dunning_of_subscription ON dunning (subscription_id) WHERE ended_at IS NULL;

CREATE TABLE payment_outcomes (
    outcome     VARCHAR(20) PRIMARY KEY,
    payments    BIGINT NOT NULL
);
COMMENT ON TABLE payment_outcomes IS 'What has become of payments, ever: no scrape has to count events.';

-- Small, however many invoices there are.
CREATE INDEX invoices_unpaid ON invoices (stripe_invoice_id)
    WHERE status = 'open' AND stripe_invoice_id IS NOT NULL;
CREATE INDEX invoices_of_stripe ON invoices (stripe_invoice_id) WHERE stripe_invoice_id IS NOT NULL;
