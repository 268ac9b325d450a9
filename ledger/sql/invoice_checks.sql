-- name: count_invoices
SELECT COUNT(*) FROM invoices;

-- name: count_line_usage
SELECT COUNT(*) FROM invoice_line_usage;

-- name: wrong_sums
-- I6: an invoice's lines sum to its total, those before credit of other invoices to its subtotal.
SELECT i.invoice_id, i.subtotal, i.total, COALESCE(SUM(l.amount), 0) AS of_lines,
       COALESCE(SUM(l.amount) FILTER (WHERE l.kind <> 'credit' OR l.description NOT IN (
           'credit of earlier invoices', 'carried to the next invoice')), 0) AS before_credit
FROM invoices i LEFT JOIN invoice_lines l USING (invoice_id)
GROUP BY i.invoice_id
HAVING COALESCE(SUM(l.amount), 0) <> i.total
    OR COALESCE(SUM(l.amount) FILTER (WHERE l.kind <> 'credit' OR l.description NOT IN (
           'credit of earlier invoices', 'carried to the next invoice')), 0) <> i.subtotal
ORDER BY 1;

-- name: wrong_numbers
-- I6: numbers from 1 to the last, each on an invoice, and none beyond.
SELECT 'INV-' || lpad(n::TEXT, GREATEST(8, length(n::TEXT)), '0') AS number, TRUE AS missing
FROM invoice_numbers CROSS JOIN LATERAL generate_series(1, last) AS n
WHERE NOT EXISTS (SELECT FROM invoices
                  WHERE number = 'INV-' || lpad(n::TEXT, GREATEST(8, length(n::TEXT)), '0'))
UNION ALL
SELECT number, FALSE FROM invoices CROSS JOIN invoice_numbers
WHERE number IS NOT NULL AND substr(number, 5)::BIGINT > last
ORDER BY 1;

-- name: open_periods
-- I6: what has an invoice is not to be invoiced again.
SELECT i.invoice_id, i.subscription_id, b.billing_period FROM invoices i
JOIN billing_periods b USING (billing_period_id) WHERE b.invoiced_at IS NULL ORDER BY 1;

-- name: wrong_billed
-- I6: what is noted as invoiced is on lines; and is no more than was used, and that where as many records
-- are invoiced as there are.
WITH on_lines AS (
    SELECT i.subscription_id, l.billing_period, l.plan_tier, l.plan_version, l.usage_type,
           SUM(l.quantity) AS quantity
    FROM invoice_lines l JOIN invoices i USING (invoice_id)
    WHERE l.kind IN ('usage', 'adjustment') AND l.billing_period IS NOT NULL GROUP BY 1, 2, 3, 4, 5),
used AS (
    SELECT subscription_id, billing_period, plan_tier, plan_version, usage_type,
           SUM(quantity) AS quantity, SUM(records) AS records
    FROM billable_usage GROUP BY 1, 2, 3, 4, 5)
SELECT subscription_id, billing_period, plan_tier, plan_version, usage_type,
       COALESCE(l.quantity, 0) AS on_lines, COALESCE(b.billable, 0) AS billed,
       COALESCE(b.measured, 0) AS measured, COALESCE(u.quantity, 0) AS used
FROM billed_usage b
FULL JOIN on_lines l USING (subscription_id, billing_period, plan_tier, plan_version, usage_type)
LEFT JOIN used u USING (subscription_id, billing_period, plan_tier, plan_version, usage_type)
WHERE COALESCE(l.quantity, 0) <> COALESCE(b.billable, 0)
   OR b.records > COALESCE(u.records, 0)
   OR (b.records = u.records AND b.measured <> u.quantity)
ORDER BY 1, 2, 3, 4, 5;

-- name: misplaced_records
-- I7: the lines of a usage type follow each other in each partition's order, up to where it is invoiced.
-- Only where they do not is it looked whether there are records. What comes before the first line was
-- invoiced when it came to nothing.
WITH ranges AS (
    SELECT i.subscription_id, l.billing_period, l.plan_tier, l.plan_version, l.usage_type, u.partition,
           u.after_position, u.through
    FROM invoice_line_usage u JOIN invoice_lines l USING (line_id) JOIN invoices i USING (invoice_id)),
ordered AS (
    SELECT *, LAG(through) OVER w AS reached, LEAD(through) OVER w AS next FROM ranges
    WINDOW w AS (PARTITION BY subscription_id, billing_period, plan_tier, plan_version, usage_type,
                              partition ORDER BY after_position, through)),
noted AS (
    SELECT o.*, COALESCE((b.positions ->> o.partition::TEXT)::BIGINT, 0) AS noted FROM ordered o
    LEFT JOIN billed_usage b USING (subscription_id, billing_period, plan_tier, plan_version, usage_type)),
places AS (
    SELECT *, reached AS since, after_position AS until, 'on no line' AS wrong FROM noted
    WHERE reached < after_position
    UNION ALL SELECT *, after_position, LEAST(reached, through), 'on two lines' FROM noted
    WHERE reached > after_position
    UNION ALL SELECT *, through, noted, 'on no line' FROM noted WHERE next IS NULL AND through < noted
    UNION ALL SELECT *, noted, through, 'on a line and not noted as invoiced' FROM noted
    WHERE next IS NULL AND through > noted)
SELECT p.subscription_id, p.billing_period, p.usage_type, p.partition, p.wrong, COUNT(*) AS records
FROM places p JOIN usage_records r -- joined, so that much damage costs one pass, not one a place
  ON (r.partition, r.subscription_id, r.billing_period, r.plan_tier, r.plan_version, r.usage_type)
   = (p.partition, p.subscription_id, p.billing_period, p.plan_tier, p.plan_version, p.usage_type)
 AND r.position > p.since AND r.position <= p.until
GROUP BY 1, 2, 3, 4, 5, p.plan_tier, p.plan_version, p.since, p.until ORDER BY 1, 2, 3, 4, 5;

-- name: never_invoiced
-- I7: usage of an ended subscription that no invoice will take. Not while corrections are being booked: the
-- ledger then sets down another invoice.
SELECT u.subscription_id, u.billing_period, u.usage_type,
       SUM(u.quantity) - COALESCE(b.measured, 0) AS quantity,
       SUM(u.records)::BIGINT - COALESCE(b.records, 0) AS records
FROM (SELECT subscription_id, status FROM subscriptions) s
JOIN billable_usage u USING (subscription_id)
LEFT JOIN billed_usage b USING (subscription_id, billing_period, plan_tier, plan_version, usage_type)
WHERE s.status IN ('canceled', 'expired')
  AND NOT EXISTS (SELECT FROM billing_periods p
                  WHERE p.subscription_id = s.subscription_id AND p.invoiced_at IS NULL)
  AND NOT EXISTS (SELECT FROM usage_corrections c JOIN usage_records r ON r.usage_id = c.original_id
                  WHERE c.done_at IS NULL AND r.subscription_id = s.subscription_id)
GROUP BY 1, 2, 3, u.plan_tier, u.plan_version, b.measured, b.records
HAVING SUM(u.quantity) <> COALESCE(b.measured, 0)
    OR SUM(u.records) <> COALESCE(b.records, CASE WHEN b.measured IS NULL THEN 0 ELSE SUM(u.records) END)
ORDER BY 1, 2, 3;
