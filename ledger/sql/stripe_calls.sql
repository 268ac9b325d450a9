-- name: lock_stripe_owing
-- One at a time: of two, the second could note a payer's later invoice first.
SELECT pg_try_advisory_xact_lock(hashtextextended('stripe owing', 0));

-- name: stripe_unowed
-- Open is what was issued, comes to more than 0 and is not paid. Held, so that it is not voided meanwhile.
SELECT * FROM invoices i
WHERE i.status = 'open' AND i.stripe_invoice_id IS NULL AND NOT i.metered
  AND NOT EXISTS (SELECT FROM stripe_calls WHERE operation = 'invoice' AND ours = i.invoice_id)
ORDER BY i.number LIMIT $1 FOR UPDATE OF i;

-- name: insert_stripe_call
-- A payer's customer is owed once; of all else there is nothing yet.
INSERT INTO stripe_calls (payer_id, scope, invoice_id, operation, ours, body, parked, last_error,
                          next_attempt_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7::TEXT, $7::TEXT, $8, $8)
ON CONFLICT (operation, ours) DO NOTHING RETURNING call_id;

-- name: due_stripe_call
-- Of each payer only the first that is not done, with what Stripe has called customer and invoice. `given`
-- is what the organisation says that its customer is. A payer has events of usage beside its invoices, both
-- after its customer; an event that is parked holds up no other.
SELECT c.call_id, c.payer_id, c.scope, c.invoice_id, c.operation, c.body, c.attempt,
       o.stripe_customer AS given, COALESCE(d.customer, c.customer) AS customer, m.stripe_id AS made, d.stripe_id AS stripe_invoice
FROM stripe_calls c
LEFT JOIN organizations o ON c.scope = 'organization' AND o.organization_id = c.payer_id
LEFT JOIN stripe_calls d ON d.operation = 'invoice' AND d.ours = c.invoice_id
LEFT JOIN stripe_calls m ON m.operation = 'customer' AND m.ours = c.payer_id
WHERE c.done_at IS NULL AND c.parked IS NULL AND c.next_attempt_at <= $1
  AND NOT EXISTS (SELECT FROM stripe_calls e
                  WHERE e.payer_id = c.payer_id AND e.done_at IS NULL AND e.call_id < c.call_id
                    AND (e.operation = 'customer'
                         OR (e.operation = 'meter_event') = (c.operation = 'meter_event'))
                    AND (e.operation <> 'meter_event' OR e.parked IS NULL))
ORDER BY c.next_attempt_at, c.call_id LIMIT 1 FOR UPDATE OF c SKIP LOCKED;

-- name: claim_stripe_call
UPDATE stripe_calls
SET attempt = $2, customer = $3, next_attempt_at = $4, attempts = attempts + 1
WHERE call_id = $1 RETURNING attempts;

-- name: stripe_call_again
-- Not by who has lost it to another.
UPDATE stripe_calls SET attempt = $3, next_attempt_at = $4, last_error = $5
WHERE call_id = $1 AND attempts = $2 AND done_at IS NULL;

-- name: park_stripe_call
UPDATE stripe_calls
SET parked = $3, last_error = $4, customer = CASE WHEN $5 THEN NULL ELSE customer END
WHERE call_id = $1 AND attempts = $2 AND done_at IS NULL AND parked IS NULL RETURNING call_id;

-- name: stripe_call_done
-- By whoever has seen it done: what Stripe made is so, whose turn it was or not.
UPDATE stripe_calls SET stripe_id = $2, done_at = $3, last_error = NULL, parked = NULL
WHERE call_id = $1 AND done_at IS NULL RETURNING call_id;

-- name: set_stripe_invoice
UPDATE invoices SET stripe_invoice_id = $2 WHERE invoice_id = $1;

-- name: hold_stripe_draft
SELECT payer_id, scope, attempt, done_at IS NOT NULL AS is_done,
       EXISTS (SELECT FROM stripe_calls s WHERE s.invoice_id = $1 AND s.skipped IS NOT NULL) AS is_skipped
FROM stripe_calls WHERE operation = 'invoice' AND ours = $1 FOR UPDATE;

-- name: skip_stripe_invoice
-- What of an invoice is not done never will be.
UPDATE stripe_calls SET skipped = $2, done_at = $3, parked = NULL
WHERE invoice_id = $1 AND done_at IS NULL;

-- name: skip_stripe_call
UPDATE stripe_calls SET skipped = 'operator', done_at = $2, parked = NULL
WHERE call_id = $1 AND done_at IS NULL AND parked IS NOT NULL;

-- name: parked_stripe_calls
SELECT c.call_id, c.payer_id, c.scope, c.invoice_id, c.operation, c.body IS NULL AS is_unsendable,
       c.attempt, c.attempts, c.last_error, c.parked, c.created_at, i.number,
       d.stripe_id AS stripe_invoice
FROM stripe_calls c
LEFT JOIN invoices i USING (invoice_id)
LEFT JOIN stripe_calls d ON d.operation = 'invoice' AND d.ours = c.invoice_id
WHERE c.done_at IS NULL AND c.parked IS NOT NULL AND ($1::BIGINT IS NULL OR c.call_id = $1)
ORDER BY c.call_id;

-- name: unpark_stripe_call
UPDATE stripe_calls SET parked = NULL, attempt = $2, next_attempt_at = $3
WHERE call_id = $1 AND done_at IS NULL AND parked IS NOT NULL RETURNING call_id;

-- name: redo_stripe_customer
-- Stripe does not know it: another account's, or mistyped. Looked for first, as after any refusal.
UPDATE stripe_calls
SET done_at = NULL, stripe_id = NULL, attempt = jsonb_set(attempt::JSONB, '{key_spent}', 'true')::JSON,
    next_attempt_at = $2
WHERE operation = 'customer' AND ours = $1 AND done_at IS NOT NULL;

-- name: forget_stripe_call
DELETE FROM stripe_calls
WHERE call_id = $1 AND body IS NULL AND done_at IS NULL RETURNING call_id;
