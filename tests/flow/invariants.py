"""What must hold at every moment of rest (I1 to I5, and the audit chain's sums)."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import Any
from uuid import UUID

from ledger import store
from lua import keys
from lua.packing import NONE, unpack_counted, unpack_said, unpack_state
from tests.conftest import Service
from tests.ledger.stream import check_totals


class Told:
    """What callers were told: the ids that were acknowledged, and how many cannot be known."""

    def __init__(self) -> None:
        self.acked: set[UUID] = set()
        self.unknown = 0

    def heard(self, answer: tuple[int, Any, dict[str, str]]) -> int:
        status, said, _ = answer
        if status == 201:
            self.acked.add(UUID(said["usage_id"]))
        elif status == 503 and said.get("outcome") == "unknown":
            self.unknown += 1
        return status


async def check(service: Service, told: Told | None = None) -> None:
    """Checks every invariant; undrained entries count as recorded."""
    undrained = await _undrained(service)
    await _acknowledged_is_recorded(service, undrained, told)
    await _one_row_per_id(service)
    await check_totals(service.sql)
    await _redis_counts_what_the_ledger_does(service, undrained)
    await _no_hard_limit_was_passed(service)
    await _counters_have_no_gaps(service)


async def _undrained(service: Service) -> list[dict[str, bytes]]:
    found = []
    for cursor in await store.cursors(service.sql):
        tail = await service.scripts.read(cursor.partition, after=cursor.last_id, count=100_000)
        found += [fields for _, fields in tail.entries if "recovery" not in fields]
    return found


async def _acknowledged_is_recorded(
    service: Service, undrained: list[dict[str, bytes]], told: Told | None
) -> None:
    if told is None:
        return
    rows = await service.sql.fetch("SELECT usage_id FROM usage_keys")
    letters = await store.dead_letters(service.sql, settled=True)
    parked = [one.fields for one in letters if one.units is not None]
    recorded = {row["usage_id"] for row in rows} | {
        UUID(bytes=unpack_said(one["event"]).usage_id) for one in undrained + parked
    }
    assert told.acked <= recorded, "I1: acknowledged, but not recorded"
    assert len(recorded - told.acked) <= told.unknown, "I1: recorded, but never acknowledged"


async def _one_row_per_id(service: Service) -> None:
    counts = await service.sql.fetchval(
        "SELECT ARRAY[COUNT(*), COUNT(DISTINCT usage_id), (SELECT COUNT(*) FROM usage_keys)]"
        " FROM usage_records"
    )
    assert len(set(counts)) == 1, "I2"


async def _redis_counts_what_the_ledger_does(
    service: Service, undrained: list[dict[str, bytes]]
) -> None:
    """I3, for every quota hash of the epoch in force."""
    places = await store.usage_types(service.sql)
    waiting: dict[tuple[str, str, int], int] = defaultdict(int)
    for fields in undrained:
        said, counted = unpack_said(fields["event"]), unpack_counted(fields["quota"])
        who, usage_type = said.who, said.usage_type.decode()
        for subject, starts in ((who, counted.starts), (who[:17], counted.pool_starts)):
            if starts != NONE:
                waiting[keys.subject_text(subject), usage_type, starts] += counted.units
    for cursor in await store.cursors(service.sql):
        pattern = f"quota:{{p{cursor.partition:02d}}}:*"
        for key in await service.redis.run("KEYS", pattern):
            subject = key.decode().partition("}:")[2]
            for usage_type in places:
                state, used = await service.redis.run("HMGET", key, "state", f"used:{usage_type}")
                if not state or unpack_state(state).epoch != cursor.epoch:  # absent, or a stub
                    continue
                if unpack_state(state).ends == 0:
                    continue  # a stub: it is rebuilt before it is used
                starts = unpack_state(state).starts
                ledger = await _ledger_units(service, subject, usage_type, starts)
                expected = ledger + waiting[subject, usage_type, starts]
                assert int(used or 0) == expected, f"I3: {subject} {usage_type}"


async def _ledger_units(service: Service, subject: str, usage_type: str, starts: int) -> int:
    """Rows and open dead letters."""
    found: Decimal = await service.sql.fetchval(
        """
        SELECT (SELECT COALESCE(SUM(t.quantity / u.unit), 0) FROM usage_totals t
                JOIN usage_types u USING (usage_type)
                WHERE t.subject = $1 AND t.usage_type = $2 AND t.quota_period = p.starts)
             + (SELECT COALESCE(SUM(units), 0) FROM dead_letters
                WHERE status = 'open' AND usage_type = $2
                  AND (subject = $1 AND quota_period = p.starts
                    OR subject LIKE $1 || ':user:%' AND pool_period = p.starts))
        FROM (SELECT to_timestamp($3::BIGINT / 1000.0) AS starts) p
        """,
        subject,
        usage_type,
        starts,
    )
    return int(found)


async def _no_hard_limit_was_passed(service: Service) -> None:
    """I4: pools by the payer's plan, caps by the user's own, else by the payer's."""
    passed = await service.sql.fetch(
        """
        SELECT r.usage_id, e FROM usage_records r
        LEFT JOIN subscriptions s ON s.scope = 'user' AND s.user_id = r.user_id
             AND s.status NOT IN ('canceled', 'expired')
        JOIN billing_plans p ON (p.plan_tier, p.version) IN (
             (r.plan_tier, r.plan_version), (s.plan_tier, s.plan_version))
        CROSS JOIN LATERAL jsonb_array_elements(p.entitlements) e
        WHERE r.enforced AND e ->> 'usage_type' = r.usage_type
          AND e ->> 'enforcement' = 'hard' AND e ->> 'limit' IS NOT NULL
          AND CASE e ->> 'scope'
              WHEN 'user' THEN p.plan_tier = COALESCE(s.plan_tier, r.plan_tier)
                               AND r.used_after > (e ->> 'limit')::NUMERIC
              ELSE p.plan_tier = r.plan_tier AND r.pool_used_after > (e ->> 'limit')::NUMERIC END
        """
    )
    assert passed == [], "I4"


async def _counters_have_no_gaps(service: Service) -> None:
    """I5: each counter's value before a record is its value after the one before it. Counters
    that were loaded anew start again; tests that lose Redis do not look here across the loss."""
    if await service.sql.fetchval("SELECT MAX(epoch) > 1 FROM stream_cursor"):
        return
    if await service.sql.fetchval("SELECT COUNT(*) FROM usage_refunds") or (
        await service.sql.fetchval("SELECT COUNT(*) FROM dead_letters")
    ):
        return
    gaps = await service.sql.fetch(
        """
        WITH counted AS (
            SELECT user_id::TEXT || COALESCE(organization_id::TEXT, '') AS counter, usage_type,
                   quota_period, used_after AS after, quantity, position FROM usage_records
            UNION ALL
            SELECT organization_id::TEXT, usage_type, pool_period, pool_used_after, quantity,
                   position FROM usage_records WHERE organization_id IS NOT NULL)
        SELECT * FROM (
            SELECT *, COALESCE(LAG(after) OVER counter, 0) AS before FROM counted
            WINDOW counter AS (PARTITION BY counter, usage_type, quota_period ORDER BY position)
        ) one WHERE after - quantity <> before
        """
    )
    assert gaps == [], "I5"
