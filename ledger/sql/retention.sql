-- name: hold_purge
-- For as long as the session lasts: of two purges the second is told.
SELECT pg_try_advisory_lock(hashtextextended('purge', 0));

-- name: months_before
SELECT to_date(right(c.relname, 7), 'YYYY_MM') AS month
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'usage_records'::REGCLASS AND to_date(right(c.relname, 7), 'YYYY_MM') < $1
ORDER BY 1;

-- name: keepers
-- Whose records a month has, and what keeps them. An invoice is about them when it has a line of their
-- terms; one that is a draft, or still to be made, is not settled.
WITH used AS (
    SELECT organization_id, subscription_id, billing_period, plan_tier, plan_version, usage_type,
           COUNT(*) AS records
    FROM usage_records
    WHERE recorded_at >= $1::DATE::TIMESTAMPTZ AND recorded_at < $2::DATE::TIMESTAMPTZ
    GROUP BY 1, 2, 3, 4, 5, 6),
invoiced AS (
    SELECT u.organization_id, MAX(COALESCE(i.issued_at, i.created_at)) AS last_issued,
           bool_or(i.status = 'draft') AS is_draft
    FROM used u JOIN invoices i USING (subscription_id)
    JOIN invoice_lines l ON l.invoice_id = i.invoice_id
     AND (l.billing_period, l.plan_tier, l.plan_version, l.usage_type)
       = (u.billing_period, u.plan_tier, u.plan_version, u.usage_type)
    GROUP BY 1),
owing AS (
    SELECT DISTINCT u.organization_id FROM used u JOIN billing_periods b USING (subscription_id)
    WHERE b.invoiced_at IS NULL AND b.period_start < $2::DATE::TIMESTAMPTZ)
SELECT u.organization_id, SUM(u.records)::BIGINT AS records,
       COALESCE(o.retention_class, 'standard') AS retention_class,
       COALESCE(o.legal_hold, FALSE) AS legal_hold,
       (i.last_issued AT TIME ZONE 'UTC')::DATE AS last_issued,
       COALESCE(i.is_draft, FALSE) OR EXISTS (
           SELECT FROM owing w WHERE w.organization_id IS NOT DISTINCT FROM u.organization_id) AS unsettled
FROM used u
LEFT JOIN organizations o USING (organization_id)
LEFT JOIN invoiced i ON i.organization_id IS NOT DISTINCT FROM u.organization_id
GROUP BY u.organization_id, o.retention_class, o.legal_hold, i.last_issued, i.is_draft
ORDER BY u.organization_id;

-- name: undecided_before
-- Entries and corrections of before a day that may still become rows, or need one.
SELECT (SELECT COUNT(*) FROM dead_letters
        WHERE status = 'open'
          AND split_part(stream_id, '-', 1)::NUMERIC < EXTRACT(EPOCH FROM $1::DATE::TIMESTAMPTZ) * 1000)
     + (SELECT COUNT(*) FROM usage_corrections c JOIN usage_keys k ON k.usage_id = c.original_id
        WHERE c.done_at IS NULL AND k.recorded_at < $1::DATE::TIMESTAMPTZ);

-- name: billed_of_organizations
-- By the end of the services: what a line is about. Credit that one invoice hands to the next is no
-- discount, and a voided invoice bills nothing.
SELECT i.organization_id, (COALESCE(l.period_end, i.period_end) AT TIME ZONE 'UTC')::DATE AS until,
       SUM(l.amount) AS amount
FROM invoices i JOIN invoice_lines l USING (invoice_id)
WHERE i.organization_id = ANY($1::UUID[]) AND i.currency = $2
  AND i.status IN ('open', 'paid', 'uncollectible') AND l.kind <> 'tax'
  AND NOT (l.kind = 'credit' AND l.description IN (
      'credit of earlier invoices', 'carried to the next invoice'))
GROUP BY 1, 2 ORDER BY 1, 2;

-- name: month_ends
-- The last place of a month in each partition's order.
SELECT partition, MAX(position) AS position FROM usage_records
WHERE recorded_at >= $1::DATE::TIMESTAMPTZ AND recorded_at < $2::DATE::TIMESTAMPTZ
GROUP BY 1 ORDER BY 1;

-- name: hold_what_keeps
-- Holds, classes and corrections stay as they are until this transaction ends.
LOCK TABLE organizations, usage_corrections IN SHARE MODE;

-- name: hold_usage_month
SELECT hold_usage_month($1);

-- name: insert_purge
INSERT INTO purges (month, records, archive, sha256, actor, purged_at) VALUES ($1, $2, $3, $4, $5, $6);

-- name: keep_sums
INSERT INTO purged_usage (month, partition, user_id, organization_id, usage_type, quota_period,
    pool_period, subscription_id, billing_period, plan_tier, plan_version, quantity, records)
SELECT $1::DATE, partition, user_id, organization_id, usage_type, quota_period, pool_period,
       subscription_id, billing_period, plan_tier, plan_version, SUM(quantity), COUNT(*)
FROM usage_records
WHERE recorded_at >= $1::DATE::TIMESTAMPTZ AND recorded_at < $2::DATE::TIMESTAMPTZ
GROUP BY partition, user_id, organization_id, usage_type, quota_period, pool_period,
         subscription_id, billing_period, plan_tier, plan_version;

-- name: note_kept
-- How many records each seal is left with; those that are left with some, which then want a hash and
-- marks of their own.
WITH gone AS (
    SELECT r.partition, s.last_position, COUNT(*) AS records
    FROM usage_records r CROSS JOIN LATERAL (
        SELECT last_position FROM audit_seals
        WHERE partition = r.partition AND last_position >= r.position
        ORDER BY last_position LIMIT 1) s
    WHERE r.recorded_at >= $1::DATE::TIMESTAMPTZ AND r.recorded_at < $2::DATE::TIMESTAMPTZ
    GROUP BY 1, 2),
noted AS (
    UPDATE audit_seals s SET kept = COALESCE(s.kept, s.records) - gone.records, kept_head = NULL
    FROM gone WHERE (s.partition, s.last_position) = (gone.partition, gone.last_position)
    RETURNING s.*)
SELECT partition, first_position, last_position, head, version, marks FROM noted WHERE kept > 0 ORDER BY 1, 2;

-- name: set_kept
UPDATE audit_seals SET kept_head = $3, marks = $4 WHERE partition = $1 AND last_position = $2;

-- name: drop_usage_month
SELECT drop_usage_month($1);

-- name: wait_briefly
-- For the lock on the whole table: the drain queues behind whoever waits for it.
SELECT set_config('lock_timeout', '2000', TRUE);

-- name: is_purged
-- A local day may begin on the day before in UTC.
SELECT EXISTS (SELECT FROM purges WHERE month + INTERVAL '1 month' >= $1::DATE);

-- name: purges_of_line
-- Months with records of a line's terms that were purged.
SELECT DISTINCT p.month, p.archive
FROM invoice_lines l JOIN invoices i USING (invoice_id)
JOIN purged_usage u ON u.subscription_id = i.subscription_id AND u.billing_period = l.billing_period
    AND u.plan_tier = l.plan_tier AND u.plan_version = l.plan_version AND u.usage_type = l.usage_type
JOIN purges p USING (month)
WHERE l.line_id = $1 AND EXISTS (SELECT FROM invoice_line_usage WHERE line_id = l.line_id)
ORDER BY p.month;

-- name: purges_of_organization
SELECT DISTINCT p.month, p.archive FROM purged_usage u JOIN purges p USING (month)
WHERE u.organization_id = $1 ORDER BY p.month;
