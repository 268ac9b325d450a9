-- Delivery to Stripe: what is owed there, one row a call, and how far each has come.

CREATE TABLE stripe_calls (
    call_id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payer_id        UUID NOT NULL,
    scope           VARCHAR(20) NOT NULL CHECK (scope IN ('user', 'organization')),
    invoice_id      UUID REFERENCES invoices,
    operation       VARCHAR(20) NOT NULL CHECK (
        operation IN ('customer', 'invoice', 'item', 'finalize', 'void', 'credit_note')),
    ours            UUID NOT NULL,
    body            JSON,
    attempt         JSON NOT NULL DEFAULT '{}',
    customer        TEXT,
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at TIMESTAMPTZ NOT NULL,
    last_error      TEXT,
    parked          VARCHAR(20) CHECK (
        parked IN ('refused', 'ambiguous', 'not_opaque', 'not_sendable')),
    stripe_id       TEXT,
    skipped         VARCHAR(20) CHECK (skipped IN ('operator', 'voided')),
    created_at      TIMESTAMPTZ NOT NULL,
    done_at         TIMESTAMPTZ,
    UNIQUE (operation, ours),
    CHECK ((invoice_id IS NULL) = (operation = 'customer')),
    CHECK ((done_at IS NOT NULL) = (stripe_id IS NOT NULL OR skipped IS NOT NULL)),
    CHECK (body IS NOT NULL OR parked = 'not_sendable' OR skipped IS NOT NULL)
);
COMMENT ON TABLE stripe_calls IS 'What is owed to Stripe, one row a request; of a payer one after the other, in the order of call_id.';
COMMENT ON COLUMN stripe_calls.ours IS 'What it is about: payer, invoice or line; Stripe has one object of it.';
COMMENT ON COLUMN stripe_calls.body IS 'Frozen: Stripe refuses a key that comes with another one. Null where Stripe cannot hold the invoice.';
COMMENT ON COLUMN stripe_calls.attempt IS 'Under which key it was sent and since when, written before each try.';
COMMENT ON COLUMN stripe_calls.customer IS 'Of an invoice: for whom its draft is made, decided when that is first sent.';
COMMENT ON COLUMN stripe_calls.attempts IS 'Counts claims: who claimed it before may no longer say how it failed.';
COMMENT ON COLUMN stripe_calls.last_error IS 'A code, never a message: those repeat what was sent.';
COMMENT ON COLUMN stripe_calls.skipped IS 'Why it is never made.';
CREATE INDEX stripe_calls_due ON stripe_calls (next_attempt_at, call_id)
    WHERE done_at IS NULL AND parked IS NULL;
CREATE INDEX stripe_calls_of_payer ON stripe_calls (payer_id, call_id) WHERE done_at IS NULL;
CREATE INDEX stripe_calls_parked ON stripe_calls (call_id) WHERE done_at IS NULL AND parked IS NOT NULL;
-- Asked for after every look at a payment, and almost always empty.
CREATE INDEX stripe_calls_key_refused ON stripe_calls (call_id)
    WHERE done_at IS NULL AND last_error = 'key_refused';
CREATE INDEX stripe_calls_of_invoice ON stripe_calls (invoice_id);

-- Small, however many invoices there are: one that is in Stripe is not in it.
CREATE INDEX invoices_undelivered ON invoices (number)
    WHERE status = 'open' AND stripe_invoice_id IS NULL;

CREATE TABLE stripe_outcomes (
    outcome VARCHAR(20) PRIMARY KEY,
    calls   BIGINT NOT NULL
);
COMMENT ON TABLE stripe_outcomes IS 'How tries ended, ever: no scrape has to count calls.';

CREATE TABLE stripe_stop (
    single  BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    since   TIMESTAMPTZ NOT NULL,
    until   TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE stripe_stop IS 'There while Stripe refuses the API key: nothing is sent before `until`, then one call is tried.';
