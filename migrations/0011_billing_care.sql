-- What operators are told of the billing cycle, and what a retry must not do twice.

-- A subscription with what its plan version says of quotas. A column added to `subscriptions` later needs
-- the view made anew.
CREATE VIEW subscriptions_on_plan AS
    SELECT s.*, p."interval", p.entitlements, own_versions(s)
    FROM subscriptions s
    JOIN billing_plans p ON p.plan_tier = s.plan_tier AND p.version = s.plan_version;

CREATE INDEX subscriptions_newest ON subscriptions (created_at DESC, subscription_id DESC);

CREATE TABLE issued_totals (
    currency    CHAR(3) PRIMARY KEY,
    total       NUMERIC(30, 6) NOT NULL
);
COMMENT ON TABLE issued_totals IS 'Of every invoice that was given a number, voided ones too: it never falls.';
INSERT INTO issued_totals
SELECT currency, SUM(total) FROM invoices WHERE number IS NOT NULL GROUP BY currency;

CREATE INDEX invoices_parked ON invoices (created_at) WHERE parked IS NOT NULL;

CREATE TABLE billing_failures (
    subscription_id UUID PRIMARY KEY REFERENCES subscriptions,
    reason          TEXT NOT NULL,
    failures        INTEGER NOT NULL DEFAULT 1,
    since           TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    retry_at        TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE billing_failures IS 'Subscriptions that could not be closed or invoiced, and when the next attempt is. Gone as soon as one succeeds.';

CREATE TABLE control_keys (
    caller          TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    fingerprint     BYTEA NOT NULL,
    answer          TEXT,
    created_at      TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (caller, idempotency_key)
);
COMMENT ON TABLE control_keys IS 'What was answered to a change under an idempotency key, written with the change: a retry is answered the same and changes nothing.';

COMMENT ON COLUMN outbox.last_error IS 'Why the last attempt could not reach Redis.';
-- Nothing ever wrote it: units of a repeat are given back by loading the quota anew.
ALTER TABLE stream_cursor DROP COLUMN refunded_through;
