-- name: add_billable
-- The subscription's rows of one partition: no two transactions share any.
INSERT INTO billable_usage AS b (partition, subscription_id, billing_period, plan_tier, plan_version,
                                 usage_type, quantity, records)
SELECT $1, a.subscription_id::UUID, a.billing_period, a.plan_tier, a.plan_version, a.usage_type,
       SUM(a.units * t.unit), SUM(a.records)
FROM unnest($2::TEXT[], $3::DATE[], $4::TEXT[], $5::INTEGER[], $6::TEXT[], $7::BIGINT[], $8::BIGINT[])
     AS a (subscription_id, billing_period, plan_tier, plan_version, usage_type, units, records)
JOIN usage_types t ON t.usage_type = a.usage_type
GROUP BY 2, 3, 4, 5, 6
ON CONFLICT (subscription_id, billing_period, plan_tier, plan_version, usage_type, partition) DO UPDATE
SET quantity = b.quantity + EXCLUDED.quantity, records = b.records + EXCLUDED.records;

-- name: count_billable
SELECT COUNT(*) FROM billable_usage;

-- name: wrong_billable
-- I6: running totals of what is to be invoiced that are not the sums of their rows; of what an id pays
-- for, or of everything. Of an id by user and organization as well: an index serves both.
WITH paid AS (
    SELECT subscription_id FROM subscriptions
    WHERE (scope = 'user' AND user_id = $1::UUID) OR (scope = 'organization' AND organization_id = $1)),
summed AS (
    SELECT subscription_id, billing_period, plan_tier, plan_version, usage_type, partition,
           SUM(quantity) AS quantity, SUM(records) AS records
    FROM counted_usage
    WHERE subscription_id IS NOT NULL
      AND ($1 IS NULL OR ((user_id = $1 OR organization_id = $1)
                          AND subscription_id IN (SELECT subscription_id FROM paid)))
    GROUP BY 1, 2, 3, 4, 5, 6),
said AS (
    SELECT * FROM billable_usage
    WHERE $1 IS NULL OR subscription_id IN (SELECT subscription_id FROM paid))
SELECT subscription_id, billing_period, plan_tier, plan_version, usage_type, partition,
       COALESCE(b.quantity, 0) AS found, COALESCE(s.quantity, 0) AS expected,
       COALESCE(s.records, 0)::BIGINT AS records
FROM summed s FULL JOIN said b
     USING (subscription_id, billing_period, plan_tier, plan_version, usage_type, partition)
WHERE COALESCE(s.quantity, 0) <> COALESCE(b.quantity, 0)
   OR COALESCE(s.records, 0) <> COALESCE(b.records, 0)
ORDER BY 1, 2, 3, 4, 5, 6;

-- name: set_billable
INSERT INTO billable_usage (subscription_id, billing_period, plan_tier, plan_version, usage_type,
                            partition, quantity, records)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (subscription_id, billing_period, plan_tier, plan_version, usage_type, partition) DO UPDATE
SET quantity = EXCLUDED.quantity, records = EXCLUDED.records;

-- name: voided_usage
SELECT l.period_start, l.plan_tier, l.plan_version, l.usage_type,
       SUM(l.amount) FILTER (WHERE i.status = 'void') AS written_off,
       COALESCE(SUM(l.amount) FILTER (WHERE i.status <> 'void'), 0) AS standing
FROM invoices i JOIN invoice_lines l USING (invoice_id)
WHERE i.subscription_id = $1 AND l.usage_type IS NOT NULL
  AND EXISTS (SELECT FROM invoices v WHERE v.subscription_id = $1 AND v.status = 'void')
GROUP BY 1, 2, 3, 4 HAVING bool_or(i.status = 'void');
