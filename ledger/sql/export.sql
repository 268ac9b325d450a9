-- Each line is a JSON object. Quantities and amounts are text, exact to the last digit.

-- name: read_patiently
-- A disk may take longer than a session may be idle in its transaction elsewhere.
SELECT set_config('idle_in_transaction_session_timeout', '0', TRUE);

-- name: export_usage
SELECT row_to_json(x)::TEXT AS line FROM (
    SELECT r.usage_id, COALESCE(p.pseudonym, r.user_id) AS user_id, r.organization_id, r.usage_type,
           trim_scale(r.quantity)::TEXT AS quantity, r.recorded_at, r.occurred_at, r.billing_period,
           r.subscription_id, r.plan_tier, r.plan_version, r.reversal_of, r.recorded_by,
           CASE WHEN p.pseudonym IS NULL THEN r.idempotency_key END AS idempotency_key,
           CASE WHEN p.pseudonym IS NULL THEN r.metadata END AS metadata, r.partition, r.position
    FROM usage_records r LEFT JOIN pseudonyms p USING (user_id)
    WHERE r.organization_id = $1 ORDER BY r.recorded_at, r.usage_id) x;

-- name: sum_usage
SELECT usage_type AS name, SUM(quantity) AS total, COUNT(*) AS records
FROM usage_records WHERE organization_id = $1 GROUP BY 1 ORDER BY 1;

-- name: export_invoices
SELECT row_to_json(x)::TEXT AS line FROM (
    SELECT i.invoice_id, i.number, i.subscription_id, COALESCE(p.pseudonym, i.user_id) AS user_id,
           i.organization_id, i.period_start, i.period_end, i.currency, i.status,
           trim_scale(i.subtotal)::TEXT AS subtotal, trim_scale(i.total)::TEXT AS total,
           trim_scale(i.amount_paid)::TEXT AS amount_paid, trim_scale(i.credited)::TEXT AS credited,
           i.stripe_invoice_id, i.issued_at, i.due_at, i.created_at,
           ARRAY(SELECT row_to_json(y) FROM (
               SELECT l.line_id, l.kind, l.usage_type, l.description,
                      trim_scale(l.quantity)::TEXT AS quantity,
                      trim_scale(l.unit_amount)::TEXT AS unit_amount,
                      trim_scale(l.amount)::TEXT AS amount, l.plan_tier, l.plan_version,
                      l.period_start, l.period_end, l.billing_period
               FROM invoice_lines l WHERE l.invoice_id = i.invoice_id ORDER BY l.place) y) AS lines
    FROM invoices i LEFT JOIN pseudonyms p USING (user_id)
    WHERE i.organization_id = $1 ORDER BY i.created_at, i.period_end, i.invoice_id) x;

-- name: sum_invoices
SELECT currency AS name, SUM(total) AS total, COUNT(*) AS records
FROM invoices WHERE organization_id = $1 GROUP BY 1 ORDER BY 1;

-- name: export_subscriptions
-- Each subscription as it stood after every change.
SELECT row_to_json(x)::TEXT AS line FROM (
    SELECT h.*, COALESCE(p.pseudonym, s.user_id) AS user_id, s.organization_id, s.scope
    FROM subscriptions s JOIN subscription_history h USING (subscription_id)
    LEFT JOIN pseudonyms p USING (user_id)
    WHERE s.organization_id = $1 ORDER BY h.subscription_id, h.version) x;

-- name: sum_subscriptions
SELECT NULL::TEXT AS name, NULL::NUMERIC AS total, COUNT(*) AS records
FROM subscriptions s JOIN subscription_history h USING (subscription_id) WHERE s.organization_id = $1;

-- name: export_corrections
SELECT row_to_json(x)::TEXT AS line FROM (
    SELECT c.usage_id, c.original_id, r.usage_type, trim_scale(c.units * t.unit)::TEXT AS quantity,
           trim_scale(c.net_units * t.unit)::TEXT AS net_quantity, c.recorded_by, c.created_at, c.done_at
    FROM usage_corrections c
    JOIN usage_keys k ON k.usage_id = c.original_id
    JOIN usage_records r ON r.usage_id = k.usage_id AND r.recorded_at = k.recorded_at
    JOIN usage_types t USING (usage_type)
    WHERE r.organization_id = $1 ORDER BY c.created_at, c.usage_id) x;

-- name: sum_corrections
SELECT r.usage_type AS name, SUM(c.units * t.unit) AS total, COUNT(*) AS records
FROM usage_corrections c
JOIN usage_keys k ON k.usage_id = c.original_id
JOIN usage_records r ON r.usage_id = k.usage_id AND r.recorded_at = k.recorded_at
JOIN usage_types t USING (usage_type)
WHERE r.organization_id = $1 GROUP BY 1 ORDER BY 1;

-- name: export_audit_events
SELECT row_to_json(x)::TEXT AS line FROM (
    SELECT e.event_id, e.event_type, e.actor, COALESCE(p.pseudonym, e.user_id) AS user_id,
           e.organization_id, e.details, e.occurred_at
    FROM audit_events e LEFT JOIN pseudonyms p USING (user_id)
    WHERE e.organization_id = $1 ORDER BY e.occurred_at, e.event_id) x;

-- name: sum_audit_events
SELECT NULL::TEXT AS name, NULL::NUMERIC AS total, COUNT(*) AS records
FROM audit_events WHERE organization_id = $1;

-- name: export_month
-- Every column, as sealed: nothing is left out of what will be dropped.
SELECT (to_jsonb(r) || jsonb_build_object('quantity', trim_scale(r.quantity)::TEXT))::TEXT AS line
FROM usage_records r
WHERE recorded_at >= $1::DATE::TIMESTAMPTZ
  AND recorded_at < $1::DATE::TIMESTAMPTZ + INTERVAL '1 month'
ORDER BY partition, position;

-- name: sum_month
SELECT usage_type AS name, SUM(quantity) AS total, COUNT(*) AS records
FROM usage_records
WHERE recorded_at >= $1::DATE::TIMESTAMPTZ
  AND recorded_at < $1::DATE::TIMESTAMPTZ + INTERVAL '1 month'
GROUP BY 1 ORDER BY 1;
