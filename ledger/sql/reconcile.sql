-- name: claim_reconcile
-- By time, not by a lock: a worker that dies leaves nothing behind, and two never do the same. The
-- microsecond tells two looks apart that begin at once.
UPDATE reconcile_state SET claimed_at = GREATEST(NOW(), claimed_at + INTERVAL '1 microsecond')
WHERE partition = $1
  AND ($2::INTEGER IS NULL OR claimed_at <= NOW() - make_interval(secs => $2))
RETURNING claimed_at, position, findings;

-- name: note_reconcile
-- Only what the latest look found: one that was overtaken has not seen what the other noted.
UPDATE reconcile_state
SET position = $3, findings = $4, checked_at = CASE WHEN $5 THEN NOW() ELSE checked_at END
WHERE partition = $1 AND claimed_at = $2;

-- name: forget_findings
-- What was told of these subjects and subscriptions is mended. A look under way does not know that:
-- it is not noted.
UPDATE reconcile_state
SET claimed_at = GREATEST(NOW(), claimed_at + INTERVAL '1 microsecond'), findings = (
    SELECT COALESCE(jsonb_agg(f), '[]') FROM jsonb_array_elements(findings) AS f
    WHERE COALESCE(f ->> 'subject' <> ALL($2::TEXT[]), TRUE)
      AND COALESCE(f ->> 'subscription_id' <> ALL($3::TEXT[]), TRUE))
WHERE partition = $1;

-- name: reconcile_ages
-- Seconds since a look at each partition last completed.
SELECT partition, EXTRACT(EPOCH FROM NOW() - checked_at)::INTEGER AS seconds
FROM reconcile_state ORDER BY partition;

-- name: reconcile_findings
-- How many of each invariant, as of when each partition was last looked at.
SELECT f ->> 'invariant' AS invariant, COUNT(*) AS findings,
       COUNT(*) FILTER (WHERE NOT COALESCE((f ->> 'repaired')::BOOLEAN, FALSE)) AS standing
FROM reconcile_state CROSS JOIN LATERAL jsonb_array_elements(findings) AS f GROUP BY 1;

-- name: count_records
SELECT COUNT(*) FROM usage_records WHERE partition = $1 AND position > $2 AND position <= $3;

-- name: unclaimed_records
-- I2: rows without their usage key, or whose key names another entry.
SELECT r.usage_id, r.position FROM usage_records r LEFT JOIN usage_keys k ON k.usage_id = r.usage_id
WHERE r.partition = $1 AND r.position > $2 AND r.position <= $3
  AND (k.partition, k.stream_id, k.recorded_at)
      IS DISTINCT FROM (r.partition, r.stream_id, r.recorded_at)
ORDER BY r.position;

-- name: recordless_keys
-- I2: units that were claimed and are no rows. A key outlives its row: a unit counts once for ever.
SELECT k.usage_id FROM usage_keys k
LEFT JOIN usage_records r ON r.usage_id = k.usage_id AND r.recorded_at = k.recorded_at
WHERE k.partition = $1 AND r.usage_id IS NULL
  AND NOT EXISTS (SELECT FROM purges p
                  WHERE p.month = date_trunc('month', k.recorded_at AT TIME ZONE 'UTC')::DATE)
ORDER BY k.usage_id;

-- name: passed_limits
-- I4: by the terms in the record, whatever the plan is by now. They are the payer's: where an organisation
-- pays for a user who has a subscription as well, the cap is that one's, as far as it is known: it has not
-- changed since. A limit is the plan's and what was granted for the period.
SELECT r.usage_id, r.position, r.usage_type, e ->> 'scope' AS scope, e ->> 'limit' AS "limit"
FROM usage_records r
LEFT JOIN LATERAL (
    SELECT own.* FROM subscriptions payer JOIN subscriptions own
         ON own.scope = 'user' AND own.user_id = r.user_id AND own.created_at <= r.recorded_at
    WHERE payer.subscription_id = r.subscription_id AND payer.scope = 'organization'
    ORDER BY own.version DESC LIMIT 1) s ON TRUE
CROSS JOIN LATERAL (
    SELECT CASE WHEN s.status NOT IN ('canceled', 'expired') THEN s.plan_tier ELSE r.plan_tier END,
           CASE WHEN s.status NOT IN ('canceled', 'expired') THEN s.plan_version ELSE r.plan_version END)
    AS cap (plan_tier, plan_version)
JOIN billing_plans p ON (p.plan_tier, p.version) IN (
     (r.plan_tier, r.plan_version), (cap.plan_tier, cap.plan_version))
CROSS JOIN LATERAL jsonb_array_elements(p.entitlements) e
WHERE r.partition = $1 AND r.position > $2 AND r.position <= $3
  AND r.enforced AND e ->> 'usage_type' = r.usage_type
  AND e ->> 'enforcement' = 'hard' AND e ->> 'limit' IS NOT NULL
  AND CASE e ->> 'scope'
      WHEN 'user' THEN (p.plan_tier, p.version) = (cap.plan_tier, cap.plan_version)
                       AND COALESCE(s.updated_at <= r.recorded_at, TRUE)
                       AND COALESCE(r.recorded_at < s.period_end, TRUE)
                       AND r.used_after > (e ->> 'limit')::NUMERIC
                       AND r.used_after > (e ->> 'limit')::NUMERIC + granted(
                           CASE WHEN r.organization_id IS NULL THEN 'user:' || r.user_id
                                ELSE 'org:' || r.organization_id || ':user:' || r.user_id END,
                           r.usage_type, r.quota_period)
      ELSE (p.plan_tier, p.version) = (r.plan_tier, r.plan_version)
           AND r.pool_used_after > (e ->> 'limit')::NUMERIC
           AND r.pool_used_after > (e ->> 'limit')::NUMERIC + granted(
               'org:' || r.organization_id, r.usage_type, r.pool_period) END
ORDER BY r.position;

-- name: counter_gaps
-- I5: a counter before a record is what it was after the record before. Not of subjects with
-- refunds or dead letters: Redis counted those, and they are no rows. Nor where an operator has
-- since accepted that records between the two are missing, or the counter was made anew.
WITH counted AS (
    SELECT CASE WHEN organization_id IS NULL THEN 'user:' || user_id
                ELSE 'org:' || organization_id || ':user:' || user_id END AS subject,
           usage_type, quota_period AS period, used_after AS after, quantity, position, usage_id,
           recorded_at
    FROM usage_records WHERE partition = $1 AND position > $2 AND position <= $3
    UNION ALL
    SELECT 'org:' || organization_id, usage_type, pool_period, pool_used_after, quantity,
           position, usage_id, recorded_at
    FROM usage_records WHERE partition = $1 AND position > $2 AND position <= $3
      AND organization_id IS NOT NULL),
running AS (
    SELECT *, SUM(quantity) OVER (PARTITION BY subject, usage_type, period ORDER BY position) AS sum
    FROM counted),
chained AS (  -- without corrections whose counter was not in Redis: what comes next counts them
    SELECT *, LAG(after) OVER w + sum - quantity - LAG(sum) OVER w AS before,
           LAG(recorded_at) OVER w AS earlier
    FROM running WHERE after IS NOT NULL
    WINDOW w AS (PARTITION BY subject, usage_type, period ORDER BY position)),
aside AS (
    SELECT subject FROM usage_refunds WHERE partition = $1
    UNION SELECT subject FROM dead_letters WHERE partition = $1
    UNION SELECT split_part(subject, ':user:', 1) FROM dead_letters WHERE partition = $1)
SELECT usage_id, position, subject, usage_type, before, after - quantity AS found FROM chained
WHERE after - quantity <> before
  AND subject NOT IN (SELECT subject FROM aside WHERE subject IS NOT NULL)
  AND NOT EXISTS (
      SELECT FROM audit_events WHERE occurred_at > earlier AND (
          event_type IN ('gap_accepted', 'redis_adopted')
              AND (details ->> 'partition')::INTEGER = $1
          OR event_type IN ('quota_repaired', 'quota_recalculated')
              AND position(chained.subject IN details::TEXT) > 0))
ORDER BY position;

-- name: broken_seals
-- I9: every seal follows the one before, covers as many rows as it says, and the cursor has the
-- last head.
WITH seals AS (
    SELECT *, LAG(head) OVER w AS before, LAG(last_position) OVER w AS reached
    FROM audit_seals WHERE partition = $1 AND last_position <= $3 AND last_position >= COALESCE((
        SELECT MAX(last_position) FROM audit_seals WHERE partition = $1 AND last_position <= $2), 0)
    WINDOW w AS (ORDER BY last_position))
SELECT last_position, 'does not follow the seal before it' AS wrong FROM seals
WHERE last_position > $2 AND (previous <> COALESCE(before, sha256(''::BYTEA))
    OR first_position <= COALESCE(reached, 0) OR last_position - first_position + 1 <> records)
UNION ALL
SELECT last_position, 'does not cover as many records as there are' FROM seals
WHERE last_position > $2 AND last_position <= $3 AND COALESCE(kept, records) <> (
    SELECT COUNT(DISTINCT position) FROM usage_records r
    WHERE r.partition = $1 AND r.position BETWEEN first_position AND last_position)
UNION ALL
SELECT last_position, 'is not the head that the cursor has' FROM (
    SELECT last_position, head FROM audit_seals WHERE partition = $1
    ORDER BY last_position DESC LIMIT 1) newest
WHERE head <> (SELECT audit_head FROM stream_cursor WHERE partition = $1)
ORDER BY 1;

-- name: unsealed_records
-- I9: rows that no seal covers.
SELECT r.usage_id, r.position FROM usage_records r
WHERE r.partition = $1 AND r.position > $2 AND r.position <= $3 AND NOT EXISTS (
    SELECT FROM audit_seals s
    WHERE s.partition = $1 AND s.last_position >= r.position AND s.first_position <= r.position)
ORDER BY r.position;

-- name: wrong_purged
-- I9: as many records are gone from the seals as were purged.
SELECT partition, COALESCE(s.gone, 0)::BIGINT AS gone, COALESCE(p.purged, 0)::BIGINT AS purged
FROM (SELECT partition, SUM(records - kept) AS gone FROM audit_seals
      WHERE kept IS NOT NULL GROUP BY 1) s
FULL JOIN (SELECT partition, SUM(records) AS purged FROM purged_usage GROUP BY 1) p USING (partition)
WHERE COALESCE(s.gone, 0) <> COALESCE(p.purged, 0) AND partition = $1;

-- name: touched_accounts
SELECT DISTINCT user_id, organization_id FROM usage_records
WHERE partition = $1 AND position > $2 AND position <= $3;

-- name: wrong_totals
-- I3: running totals that are not the sums of their rows.
WITH counted AS (
    SELECT CASE WHEN organization_id IS NULL THEN 'user:' || user_id
                ELSE 'org:' || organization_id || ':user:' || user_id END AS subject,
           usage_type, quota_period, quantity, records FROM counted_usage
    UNION ALL
    SELECT 'org:' || organization_id, usage_type, pool_period, quantity, records
    FROM counted_usage WHERE organization_id IS NOT NULL),
summed AS (
    SELECT subject, usage_type, quota_period, SUM(quantity) AS quantity, SUM(records) AS records
    FROM counted GROUP BY 1, 2, 3)
SELECT subject, usage_type, quota_period, COALESCE(t.quantity, 0) AS found,
       COALESCE(summed.quantity, 0) AS expected, COALESCE(summed.records, 0)::BIGINT AS records
FROM summed FULL JOIN usage_totals t USING (subject, usage_type, quota_period)
WHERE COALESCE(summed.quantity, 0) <> COALESCE(t.quantity, 0)
   OR COALESCE(summed.records, 0) <> COALESCE(t.records, 0)
ORDER BY subject, usage_type, quota_period;

-- name: counted
-- What Redis should count of each subject but for what is not drained: totals and open dead letters.
SELECT subject, usage_type, quota_period, SUM(units)::BIGINT AS units FROM (
    SELECT t.subject, t.usage_type, t.quota_period, t.quantity / u.unit AS units
    FROM usage_totals t JOIN usage_types u USING (usage_type) WHERE t.subject = ANY($1::TEXT[])
    UNION ALL
    SELECT subject, usage_type, quota_period, units FROM dead_letters
    WHERE status = 'open' AND usage_type IS NOT NULL AND subject = ANY($1)
    UNION ALL
    SELECT split_part(subject, ':user:', 1), usage_type, pool_period, units FROM dead_letters
    WHERE status = 'open' AND usage_type IS NOT NULL AND pool_period IS NOT NULL
      AND split_part(subject, ':user:', 1) = ANY($1)
) counted GROUP BY 1, 2, 3;

-- name: subjects_of
-- Everything that is counted under an id: a user's accounts, or an organisation's pool and members.
SELECT subject FROM usage_totals
WHERE subject IN ('user:' || $1::UUID, 'org:' || $1) OR subject LIKE 'org:' || $1 || ':user:%'
   OR subject LIKE 'org:%:user:' || $1
UNION SELECT CASE WHEN organization_id IS NULL THEN 'user:' || user_id
             ELSE 'org:' || organization_id || ':user:' || user_id END
FROM usage_records WHERE user_id = $1 OR organization_id = $1
UNION SELECT 'org:' || organization_id FROM usage_records WHERE organization_id = $1
ORDER BY subject;

-- name: wrong_totals_of
-- A subject's totals that are not the sums of its rows.
WITH summed AS (
    SELECT usage_type, CASE WHEN $2::UUID IS NULL THEN pool_period ELSE quota_period END AS quota_period,
           SUM(quantity) AS quantity, SUM(records) AS records
    FROM counted_usage
    WHERE (user_id = $2 AND organization_id IS NOT DISTINCT FROM $3::UUID)
       OR ($2 IS NULL AND organization_id = $3) -- so written, an index serves both
    GROUP BY 1, 2)
SELECT usage_type, quota_period, COALESCE(t.quantity, 0) AS found,
       COALESCE(s.quantity, 0) AS expected, COALESCE(s.records, 0)::BIGINT AS records
FROM summed s FULL JOIN (SELECT * FROM usage_totals WHERE subject = $1) t
     USING (usage_type, quota_period)
WHERE COALESCE(s.quantity, 0) <> COALESCE(t.quantity, 0)
   OR COALESCE(s.records, 0) <> COALESCE(t.records, 0)
ORDER BY 1, 2;

-- name: set_total
INSERT INTO usage_totals (subject, usage_type, quota_period, quantity, records)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (subject, usage_type, quota_period) DO UPDATE
SET quantity = EXCLUDED.quantity, records = EXCLUDED.records;
