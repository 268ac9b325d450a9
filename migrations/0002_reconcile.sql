-- Reconciling: what was compared, and how the ledger's own counts may change other than by draining.

ALTER TABLE stream_cursor ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
COMMENT ON COLUMN stream_cursor.revision IS 'Grows when counts of this partition change otherwise than by draining: a quota loaded from an older snapshot is refused.';

CREATE TABLE reconcile_state (
    partition       SMALLINT PRIMARY KEY,
    position        BIGINT NOT NULL DEFAULT 0,
    checked_at      TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    findings        JSONB NOT NULL DEFAULT '[]'
);
COMMENT ON TABLE reconcile_state IS 'Per partition: the last position whose rows were compared, and what did not agree when last looked at.';
