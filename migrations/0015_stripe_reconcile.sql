-- Once a day invoices are compared with Stripe: by whom, when next, and what was found.

CREATE TABLE stripe_reconcile (
    single          BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    since           TIMESTAMPTZ NOT NULL,
    next_at         TIMESTAMPTZ NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    completed_at    TIMESTAMPTZ,
    missing         BIGINT NOT NULL DEFAULT 0,
    extra           BIGINT NOT NULL DEFAULT 0,
    different       BIGINT NOT NULL DEFAULT 0,
    missed          BIGINT NOT NULL DEFAULT 0,
    missed_ever     BIGINT NOT NULL DEFAULT 0
);
COMMENT ON TABLE stripe_reconcile IS 'When invoices were last compared with Stripe, and how much did not agree; no row until a ledger has a key.';
COMMENT ON COLUMN stripe_reconcile.next_at IS 'Not before then: it is somebody''s until then, or was done.';
COMMENT ON COLUMN stripe_reconcile.attempts IS 'Claims since it was last compared to the end.';
COMMENT ON COLUMN stripe_reconcile.missed_ever IS 'Events that Stripe has and did not bring here, ever: no scrape has to count them.';
