-- name: insert_stripe_event
INSERT INTO stripe_events (event_id, type, stripe_invoice_id, created_at, received_at)
VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING;

-- name: waiting_stripe_events
SELECT event_id, type, stripe_invoice_id, created_at FROM stripe_events
WHERE stripe_invoice_id = $1 AND done_at IS NULL ORDER BY created_at, event_id;

-- name: stripe_events_done
-- Those that nobody else has done: an effect is counted once.
UPDATE stripe_events SET invoice_id = $2, done_at = $3 WHERE event_id = ANY($1::TEXT[]) AND done_at IS NULL
RETURNING event_id;

-- name: forget_stripe_events
DELETE FROM stripe_events
WHERE event_id IN (SELECT event_id FROM stripe_events WHERE done_at < $1 ORDER BY done_at LIMIT $2);

-- name: stripe_events_state
SELECT COUNT(*) AS waiting,
       COALESCE(GREATEST(0, EXTRACT(EPOCH FROM NOW() - MIN(received_at))), 0)::BIGINT AS oldest_s
FROM stripe_events WHERE done_at IS NULL;
