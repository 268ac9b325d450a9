-- The life of a subscription: who changed what, and what that costs.

ALTER TABLE subscriptions ADD COLUMN advance JSONB;
COMMENT ON COLUMN subscriptions.advance IS 'What was last charged in advance for the running period: what a change within it gives back a share of.';

CREATE TABLE subscription_history (
    subscription_id UUID NOT NULL REFERENCES subscriptions,
    version         BIGINT NOT NULL,
    action          VARCHAR(30) NOT NULL,
    actor           TEXT NOT NULL,
    occurred_at     TIMESTAMPTZ NOT NULL,
    effective_at    TIMESTAMPTZ NOT NULL,
    status          VARCHAR(20) NOT NULL,
    plan_tier       VARCHAR(50) NOT NULL,
    plan_version    INTEGER NOT NULL,
    anchor          DATE NOT NULL,
    timezone        TEXT NOT NULL,
    trial_end       TIMESTAMPTZ,
    cancel_at       TIMESTAMPTZ,
    pending_change  JSONB,
    PRIMARY KEY (subscription_id, version)
);
COMMENT ON TABLE subscription_history IS 'A subscription as it stood after each change, and by whom. Rows never change.';
COMMENT ON COLUMN subscription_history.effective_at IS 'When it took effect: what fell due, at the instant it was set for, whenever that was noticed.';

CREATE TABLE pending_lines (
    line_id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription_id UUID NOT NULL REFERENCES subscriptions,
    line            JSONB NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL
);
CREATE INDEX pending_lines_of_subscription ON pending_lines (subscription_id, created_at);
COMMENT ON TABLE pending_lines IS 'Lines of changes within a period, for the subscription''s next invoice, which takes them over.';
