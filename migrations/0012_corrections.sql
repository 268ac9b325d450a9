-- Corrections of usage: what was asked for is committed here before it is an entry in the stream.

CREATE TABLE usage_corrections (
    usage_id        UUID PRIMARY KEY,
    original_id     UUID NOT NULL,
    idempotency_key TEXT NOT NULL,
    fingerprint     BYTEA NOT NULL,
    units           BIGINT NOT NULL CHECK (units <> 0),
    net_units       BIGINT NOT NULL CHECK (net_units >= 0),
    recorded_by     TEXT NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 1,
    next_attempt_at TIMESTAMPTZ NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    done_at         TIMESTAMPTZ
);
COMMENT ON TABLE usage_corrections IS 'What finance asked to be corrected; sent to the stream until it is a usage record of the same usage_id.';
COMMENT ON COLUMN usage_corrections.net_units IS 'What is left of the original after it, in units.';
CREATE INDEX usage_corrections_of_original ON usage_corrections (original_id);
CREATE INDEX usage_corrections_due ON usage_corrections (next_attempt_at) WHERE done_at IS NULL;

CREATE INDEX usage_records_reversing ON usage_records (reversal_of) WHERE reversal_of IS NOT NULL;
ALTER TABLE usage_records ALTER COLUMN used_after DROP NOT NULL;
COMMENT ON COLUMN usage_records.used_after IS 'Null in a correction whose quota was not in Redis: no counter was changed by it.';

-- An entry begins with its usage id. Letters that were settled stay, and a bad build parks many.
CREATE INDEX dead_letters_of_usage ON dead_letters (left(entry ->> 'event', 32));

CREATE INDEX invoices_of_subscription ON invoices (subscription_id);

ALTER TABLE billed_usage ADD COLUMN records BIGINT;
COMMENT ON COLUMN billed_usage.records IS 'How many records were measured: those that cancel each out change no quantity. Null when not known.';
