-- Audit events in a hash chain of their own. They are sealed in order a moment after they were committed,
-- so that transactions that write some do not wait for each other.

ALTER TABLE audit_events
    ADD COLUMN noted_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    ADD COLUMN sequence BIGINT UNIQUE CHECK (sequence >= 1),
    ADD COLUMN version  SMALLINT,
    ADD COLUMN previous BYTEA,
    ADD COLUMN hash     BYTEA,
    ADD CHECK (num_nulls(sequence, version, previous, hash) IN (0, 4));
COMMENT ON COLUMN audit_events.noted_at IS 'Begin of the transaction that wrote it, by the real time; of events from before migration 0018 when that was applied.';
COMMENT ON COLUMN audit_events.sequence IS 'Place in the chain, from 1 and without gaps; null until it is sealed.';
COMMENT ON COLUMN audit_events.hash IS 'Of the event, its place and the hash before it: docs/audit.md.';
CREATE INDEX audit_events_unsealed ON audit_events (noted_at, event_id) WHERE sequence IS NULL;
CREATE INDEX audit_events_by_time ON audit_events (occurred_at DESC, event_id DESC);

CREATE TABLE audit_chains (
    chain       TEXT PRIMARY KEY,
    sequence    BIGINT NOT NULL DEFAULT 0,
    head        BYTEA NOT NULL DEFAULT sha256(''::BYTEA)
);
COMMENT ON TABLE audit_chains IS 'The newest head of the chain of audit events; its row is the lock that keeps the chain from forking.';
INSERT INTO audit_chains (chain) VALUES ('control');

CREATE TABLE audit_deliveries (
    chain       TEXT PRIMARY KEY,
    delivered   BIGINT NOT NULL DEFAULT 0,
    attempts    INTEGER NOT NULL DEFAULT 0,
    not_before  TIMESTAMPTZ NOT NULL DEFAULT '-infinity',
    failing_since TIMESTAMPTZ,
    last_error  TEXT
);
COMMENT ON TABLE audit_deliveries IS 'How far the audit service has each chain; empty until a ledger has AUDIT_SERVICE_URL.';
COMMENT ON COLUMN audit_deliveries.not_before IS 'Claimed by a ledger, or the audit service did not take it: left alone until then.';

-- What a seal of version 2 covers is the whole row; a ledger of an earlier build still makes version 1.
ALTER TABLE audit_seals
    ADD COLUMN version SMALLINT NOT NULL DEFAULT 1,
    ADD COLUMN marks   BYTEA NOT NULL DEFAULT '';
COMMENT ON COLUMN audit_seals.marks IS 'First 8 bytes of the hash of each record, in order: by them verify names the one that was changed. Zeros: a purge took it.';
COMMENT ON COLUMN audit_seals.kept_head IS 'Made as head is, of the records that were left, after head in place of previous: docs/audit.md.';
ALTER TABLE audit_seals ALTER COLUMN marks SET STORAGE EXTERNAL; -- hashes do not compress
COMMENT ON TABLE audit_seals IS 'The hash chain of each partition''s records, a link per drained batch: docs/audit.md.';
