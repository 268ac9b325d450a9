-- name: to_bill
-- What was used under each terms beside what has been invoiced of it, and how far the partitions it is
-- in have been drained: one snapshot. Of periods before $2 alone, if given.
SELECT u.billing_period, u.plan_tier, u.plan_version, u.usage_type, SUM(u.quantity) AS measured,
       SUM(u.records)::BIGINT AS records, b.measured AS billed_measured, b.records AS billed_records,
       b.billable AS billed, b.positions,
       jsonb_object_agg(u.partition, c.position) AS through
FROM billable_usage u
JOIN stream_cursor c USING (partition)
LEFT JOIN billed_usage b USING (subscription_id, billing_period, plan_tier, plan_version, usage_type)
WHERE u.subscription_id = $1 AND ($2::DATE IS NULL OR u.billing_period < $2)
GROUP BY 1, 2, 3, 4, b.measured, b.records, b.billable, b.positions
ORDER BY 1, 2, 3, 4;

-- name: measured_records
-- Of the user or the organization that pays: an index knows them, and none a subscription. Usage of the
-- default plan has none. Corrections of them may be recorded whenever.
WITH of_period AS (
    SELECT usage_id, user_id, occurred_at, quantity, reversal_of, recorded_at FROM usage_records
    WHERE subscription_id IS NOT DISTINCT FROM $1 AND billing_period = $2 AND plan_tier = $3 AND plan_version = $4
      AND usage_type = $5 AND recorded_at >= $6 AND recorded_at < $7
      AND (user_id = $8 OR organization_id = $9))
SELECT * FROM of_period
UNION ALL
SELECT r.usage_id, r.user_id, r.occurred_at, r.quantity, r.reversal_of, r.recorded_at
FROM of_period o JOIN usage_records r ON r.reversal_of = o.usage_id AND r.recorded_at >= $7
ORDER BY recorded_at, usage_id;

-- name: take_pending_lines
DELETE FROM pending_lines WHERE subscription_id = $1 AND created_at < $2
RETURNING line_id, line;

-- name: pending_lines
SELECT line FROM pending_lines WHERE subscription_id = $1 ORDER BY line_id;

-- name: next_invoice_number
-- What is issued is summed where it gets its number: exact, and no scrape ever reads all invoices.
WITH summed AS (
    INSERT INTO issued_totals AS t VALUES ($1, $2) ON CONFLICT (currency) DO UPDATE
    SET total = t.total + EXCLUDED.total)
UPDATE invoice_numbers SET last = last + 1 RETURNING last;

-- name: insert_invoice
-- Metered, so that Stripe does not charge for its usage twice: while meters count, and when they counted
-- some of its period. Held, so that the mode is not another one when this is committed.
INSERT INTO invoices (invoice_id, billing_period_id, number, subscription_id, user_id, organization_id,
    scope, period_start, period_end, currency, status, subtotal, total, parked, issued_at, due_at,
    created_at, metered)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
    (SELECT mode = 'meters' FROM stripe_mode FOR SHARE)
    OR EXISTS (SELECT FROM billing_periods b JOIN metered_usage m USING (subscription_id, billing_period)
               WHERE b.billing_period_id = $2 AND b.kind = 'period' AND m.taken_at IS NOT NULL));

-- name: insert_line
INSERT INTO invoice_lines (line_id, invoice_id, place, kind, usage_type, description, quantity,
    unit_amount, amount, plan_tier, plan_version, period_start, period_end, billing_period)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14);

-- name: insert_line_usage
INSERT INTO invoice_line_usage (line_id, partition, after_position, through) VALUES ($1, $2, $3, $4);

-- name: note_billed
INSERT INTO billed_usage (subscription_id, billing_period, plan_tier, plan_version, usage_type, measured,
                          billable, positions, records)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (subscription_id, billing_period, plan_tier, plan_version, usage_type) DO UPDATE
SET measured = EXCLUDED.measured, billable = EXCLUDED.billable, positions = EXCLUDED.positions,
    records = EXCLUDED.records;

-- name: set_credit
UPDATE subscriptions SET credit = $2 WHERE subscription_id = $1;

-- name: invoice
SELECT * FROM invoices WHERE invoice_id = $1;

-- name: hold_invoice
SELECT * FROM invoices WHERE invoice_id = $1 FOR UPDATE;

-- name: issue_invoice
UPDATE invoices SET number = $2, issued_at = $3, due_at = $4, parked = NULL,
    status = CASE WHEN total = 0 THEN 'paid' ELSE 'open' END
WHERE invoice_id = $1;

-- name: void_invoice
UPDATE invoices SET status = 'void', parked = NULL WHERE invoice_id = $1;

-- name: return_credit
-- Negative where the invoice carried some forward, which must not have been used since.
UPDATE subscriptions SET credit = credit + $2 WHERE subscription_id = $1 AND credit + $2 >= 0
RETURNING credit;

-- name: add_credited
UPDATE invoices SET credited = credited + $2 WHERE invoice_id = $1;

-- name: invoice_lines
SELECT * FROM invoice_lines WHERE invoice_id = ANY($1::UUID[]) ORDER BY invoice_id, place;

-- name: list_invoices
SELECT * FROM invoices
WHERE ($1::UUID IS NULL OR organization_id = $1) AND ($2::UUID IS NULL OR user_id = $2)
  AND ($3::TEXT IS NULL OR scope = $3) AND ($4::TEXT IS NULL OR status = $4)
  AND ($5::TIMESTAMPTZ IS NULL OR (created_at, period_end, invoice_id) < ($5, $6, $7::UUID))
  AND ($8::TEXT IS NULL OR number = $8)
ORDER BY created_at DESC, period_end DESC, invoice_id DESC LIMIT $9;

-- name: line_usage_position
SELECT recorded_at FROM usage_records WHERE usage_id = $1;

-- name: line_usage
-- The records a line is about, newest first. Of who pays, and not of the months before the period: its
-- places alone are those of everybody in the partition.
SELECT r.* FROM invoice_lines l
JOIN invoices i ON i.invoice_id = l.invoice_id
JOIN subscriptions s ON s.subscription_id = i.subscription_id
JOIN invoice_line_usage u ON u.line_id = l.line_id
JOIN usage_records r ON r.partition = u.partition
    AND r.position > u.after_position AND r.position <= u.through
    AND r.subscription_id = i.subscription_id AND r.billing_period = l.billing_period
    AND r.plan_tier = l.plan_tier AND r.plan_version = l.plan_version AND r.usage_type = l.usage_type
    AND (r.user_id = CASE s.scope WHEN 'user' THEN s.user_id END
      OR r.organization_id = CASE s.scope WHEN 'organization' THEN s.organization_id END)
    AND r.recorded_at >= l.period_start - INTERVAL '1 hour'
WHERE l.line_id = $1 AND l.invoice_id = $2
  AND ($3::TIMESTAMPTZ IS NULL OR (r.recorded_at, r.usage_id) < ($3, $4::UUID))
ORDER BY r.recorded_at DESC, r.usage_id DESC LIMIT $5;
