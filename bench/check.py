"""Was every accepted unit kept, once? Asked at the end of every run, when all is drained."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from bench.generator import Sample
from bench.results import Check
from bench.rig import PARTITIONS, Rig
from bench.traffic import QUANTITY, USAGE_TYPE
from lua import keys

_CHUNK = 1_000

_ROWS = (
    "SELECT COUNT(*) AS rows, COUNT(DISTINCT usage_id) AS ids, SUM(quantity) AS quantity"
    " FROM usage_records"
)
_OVER = """
SELECT COUNT(*) FROM (
    SELECT plan_tier, plan_version, MAX(used_after) AS used, MAX(pool_used_after) AS pool_used
    FROM usage_records WHERE usage_type = $1 GROUP BY plan_tier, plan_version
) AS u
JOIN billing_plans p ON p.plan_tier = u.plan_tier AND p.version = u.plan_version
CROSS JOIN LATERAL jsonb_array_elements(p.entitlements) AS e
WHERE e ->> 'usage_type' = $1 AND e ->> 'enforcement' = 'hard'
  AND CASE e ->> 'scope' WHEN 'user' THEN u.used ELSE u.pool_used END > (e ->> 'limit')::NUMERIC
"""
_TOTALS = """
SELECT DISTINCT ON (t.subject) t.subject, (t.quantity / y.unit)::BIGINT AS units,
       SUM(t.quantity) OVER (PARTITION BY t.subject) AS ever
FROM usage_totals t JOIN usage_types y USING (usage_type) WHERE t.usage_type = $1
ORDER BY t.subject, t.quota_period DESC
"""
_ASIDE = "SELECT (SELECT COUNT(*) FROM dead_letters) + (SELECT COUNT(*) FROM usage_refunds)"


class Books:
    """What the callers were told: recorded events, and requests whose outcome they never heard."""

    def __init__(self) -> None:
        self.recorded = 0
        self.unknown = 0
        self.surprises = 0  # answers that no mix asks for

    def enter(self, sample: Sample, *expected: int) -> None:
        """Enters a load of the service; `expected` are the other statuses it may answer."""
        self.recorded += sample.recorded
        self.unknown += sample.unknown
        wanted = {200, 201, *expected}
        self.surprises += sum(n for status, n in sample.statuses.items() if status not in wanted)


async def verify(rig: Rig, books: Books) -> list[Check]:
    """The invariants of the run; everything must be drained."""
    row = await rig.sql.fetchrow(_ROWS)
    assert row is not None
    rows, quantity = row["rows"], row["quantity"] or Decimal(0)
    made, drained = await rig.appended()
    over = await rig.sql.fetchval(_OVER, USAGE_TYPE)
    aside = await rig.sql.fetchval(_ASIDE)
    wrong, pools = await _compare(rig)
    highest = books.recorded + books.unknown
    return [
        Check("everything is drained", made == drained, f"{drained} of {made} entries"),
        Check(
            "acknowledged records are rows, and nothing else is"
            + (" (but for requests cut off at the end of a load)" if books.unknown else ""),
            books.recorded <= rows <= highest,
            f"{books.recorded} acknowledged, {books.unknown} unknown, {rows} rows",
        ),
        Check("every stream entry is one row", rows == drained, f"{drained} entries, {rows} rows"),
        Check("no usage id twice", rows == row["ids"], f"{row['ids']} ids"),
        Check("quantities add up", quantity == rows * QUANTITY, f"{quantity:f} in {rows} rows"),
        Check("Redis counts what Postgres totals", wrong == 0, f"{wrong} subjects differ"),
        Check(
            "pools total what the rows add up to", pools == quantity, f"{pools:f} and {quantity:f}"
        ),
        Check("no used_after above its hard limit", over == 0, f"{over} plans and scopes above"),
        Check("no dead letters, no refunds", aside == 0, f"{aside} found"),
        Check("no unexpected answers", books.surprises == 0, f"{books.surprises} answers"),
    ]


async def _compare(rig: Rig) -> tuple[int, Decimal]:
    """Subjects whose used units in Redis differ from their newest period's total, and the
    quantity of all pools (of every period: a run may pass midnight of a month's last day)."""
    wrong, pools = 0, Decimal(0)
    totals = await rig.sql.fetch(_TOTALS, USAGE_TYPE)
    for at in range(0, len(totals), _CHUNK):
        chunk = totals[at : at + _CHUNK]
        pipeline = rig.redis.client.pipeline(transaction=False)
        for one in chunk:
            pipeline.hget(_quota_key(one["subject"]), f"used:{USAGE_TYPE}")
        for one, used in zip(chunk, await pipeline.execute(), strict=True):
            wrong += int(used or 0) != one["units"]
            if ":user:" not in one["subject"]:
                pools += one["ever"]
    return wrong, pools


def _quota_key(subject: str) -> str:
    organization, _, user = subject.removeprefix("org:").partition(":user:")
    raw = b"o" + UUID(organization).bytes
    partition = keys.partition_of(raw, PARTITIONS)
    return keys.quota(partition, raw + UUID(user).bytes if user else raw)
