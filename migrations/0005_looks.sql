-- A look of reconcile that was begun is not one that was completed: the claim has a time of its own, and
-- what was found is noted by whoever still holds it.

ALTER TABLE reconcile_state ADD COLUMN claimed_at TIMESTAMPTZ NOT NULL DEFAULT '-infinity';
COMMENT ON COLUMN reconcile_state.claimed_at IS 'When the latest look began; it names the look.';
COMMENT ON COLUMN reconcile_state.checked_at IS 'When a look last completed; at first, since when one is due.';
INSERT INTO reconcile_state (partition) SELECT partition FROM stream_cursor ON CONFLICT DO NOTHING;
UPDATE reconcile_state SET claimed_at = checked_at;
-- Whether a gap between two counters is excused is asked for each gap: by kind and time.
CREATE INDEX audit_events_by_type ON audit_events (event_type, occurred_at);

COMMENT ON COLUMN stream_cursor.revision IS 'Grows when counts of this partition change otherwise than Redis counted (a repeat, a settled dead letter, a recalculation): a quota loaded from an older snapshot is refused.';
