-- name: hold_paid_invoice
-- By Stripe's id; by ours while Stripe's is on its way here.
SELECT * FROM invoices
WHERE stripe_invoice_id = $1 OR (invoice_id = $2 AND stripe_invoice_id IS NULL)
ORDER BY stripe_invoice_id IS NULL LIMIT 1 FOR UPDATE;

-- name: set_payment
UPDATE invoices SET status = $2, amount_paid = $3 WHERE invoice_id = $1;

-- name: dunning
SELECT owed_since, step, step_since FROM dunning WHERE invoice_id = $1 AND ended_at IS NULL;

-- name: put_dunning
INSERT INTO dunning (invoice_id, subscription_id, owed_since, step, step_since)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (invoice_id) DO UPDATE
SET owed_since = EXCLUDED.owed_since, step = EXCLUDED.step, step_since = EXCLUDED.step_since;

-- name: end_dunning
UPDATE dunning SET ended_at = $2 WHERE invoice_id = $1 AND ended_at IS NULL;

-- name: dunning_steps
SELECT step FROM dunning WHERE subscription_id = $1 AND ended_at IS NULL;

-- name: count_payment
INSERT INTO payment_outcomes AS o VALUES ($1, $2)
ON CONFLICT (outcome) DO UPDATE SET payments = o.payments + EXCLUDED.payments;

-- name: payment_outcomes
SELECT outcome, payments FROM payment_outcomes ORDER BY outcome;

-- name: dunning_counts
SELECT step, COUNT(*) AS invoices FROM dunning WHERE ended_at IS NULL GROUP BY step;
