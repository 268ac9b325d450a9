-- name: switch_stripe_mode
-- Waits for who writes an invoice, and who does so after it sees it.
UPDATE stripe_mode SET mode = $1, since = $2 WHERE mode <> $1 RETURNING mode;

-- name: stripe_mode
SELECT mode FROM stripe_mode;

-- name: hold_metering
-- One at a time, while meters count: of two, both would take the same usage.
SELECT mode = 'meters' AND pg_try_advisory_xact_lock(hashtextextended('stripe metering', 0))
FROM stripe_mode FOR SHARE;

-- name: leave_invoiced
-- What is on invoices from before meters counted is in Stripe by them, but for those that are not sent.
INSERT INTO metered_usage (subscription_id, billing_period, usage_type, before, taken)
SELECT b.subscription_id, b.billing_period, b.usage_type, u.units, u.units
FROM (SELECT subscription_id, billing_period, usage_type, SUM(measured) AS measured
      FROM billed_usage GROUP BY 1, 2, 3) b
JOIN usage_types t USING (usage_type), LATERAL (SELECT div(b.measured, t.unit) AS units) u
WHERE NOT EXISTS (
    SELECT FROM invoices i JOIN billing_periods p USING (billing_period_id)
    WHERE i.metered AND p.kind = 'period' AND p.subscription_id = b.subscription_id
      AND p.billing_period = b.billing_period)
ON CONFLICT DO NOTHING;

-- name: subscriptions_to_meter
-- The next ones after $1. A few at a time: what all of them ever used is more than one statement can add up.
SELECT subscription_id FROM subscriptions WHERE subscription_id > $1 ORDER BY subscription_id LIMIT $2;

-- name: to_meter
-- What these subscriptions used and is in no event yet, of these usage types: the whole units of all that was
-- used, less those that were taken. So a part of a unit, and what is less than nothing, stay for a later event. Nothing while
-- an event of the same is on its way: then Stripe is slow, and fewer of them are better.
SELECT u.subscription_id, u.billing_period, u.usage_type, div(u.quantity, t.unit)::BIGINT AS used,
       COALESCE(m.taken, 0)::BIGINT AS taken
FROM (SELECT subscription_id, billing_period, usage_type, SUM(quantity) AS quantity FROM billable_usage
      WHERE subscription_id = ANY($4::UUID[]) AND usage_type = ANY($1::TEXT[]) GROUP BY 1, 2, 3) u
JOIN usage_types t USING (usage_type)
LEFT JOIN metered_usage m USING (subscription_id, billing_period, usage_type)
WHERE div(u.quantity, t.unit) <> COALESCE(m.taken, 0) AND (m.taken_at IS NULL OR m.taken_at <= $2)
  AND NOT EXISTS (
    SELECT FROM meter_events e JOIN stripe_calls c ON c.operation = 'meter_event' AND c.ours = e.event_id
    WHERE (e.subscription_id, e.billing_period, e.usage_type)
        = (u.subscription_id, u.billing_period, u.usage_type)
      AND c.done_at IS NULL AND c.parked IS NULL)
ORDER BY div(u.quantity, t.unit) < COALESCE(m.taken, 0), m.taken_at NULLS FIRST,
         u.subscription_id, u.billing_period, u.usage_type
LIMIT $3;

-- name: take_metered
INSERT INTO metered_usage AS m (subscription_id, billing_period, usage_type, before, taken, taken_at)
VALUES ($1, $2, $3, 0, $4, $5)
ON CONFLICT (subscription_id, billing_period, usage_type) DO UPDATE
SET taken = EXCLUDED.taken, taken_at = EXCLUDED.taken_at;

-- name: free_minute
-- The last one until $4 that no event of the payer and usage type is in: that itself, or one before another.
SELECT c.minute
FROM (SELECT $4::TIMESTAMPTZ AS minute
      UNION ALL
      SELECT minute - INTERVAL '1 minute' FROM meter_events
      WHERE payer_id = $1 AND usage_type = $2 AND minute > $3 AND minute <= $4) c
WHERE NOT EXISTS (SELECT FROM meter_events e
                  WHERE e.payer_id = $1 AND e.usage_type = $2 AND e.minute = c.minute)
ORDER BY c.minute DESC LIMIT 1;

-- name: insert_meter_event
INSERT INTO meter_events (event_id, subscription_id, billing_period, usage_type, payer_id, units, minute,
                          created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);
