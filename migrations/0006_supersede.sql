-- A change of terms reaches every quota that was loaded under the earlier ones.

ALTER TABLE outbox ADD COLUMN awaits SMALLINT[];
COMMENT ON COLUMN outbox.awaits IS 'Partitions whose control entry has not been drained yet; done when there is none left.';

CREATE TABLE organization_users (
    user_id         UUID NOT NULL,
    organization_id UUID NOT NULL,
    first_seen_at   TIMESTAMPTZ NOT NULL DEFAULT NOW(),
    PRIMARY KEY (user_id, organization_id)
);
COMMENT ON TABLE organization_users IS 'For whom a user''s quota was ever loaded: noted before the load, so that a change of the user''s own subscription finds them all.';
