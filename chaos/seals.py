"""The audit chain, computed again from the rows."""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from hashlib import sha256
from typing import Any

from ledger import db
from ledger.domain.usage import Payload, Terms, UsageRecord, seal

_NOTHING = sha256(b"").digest()  # where every chain begins

_ROWS = """
SELECT r.usage_id, r.user_id, r.organization_id, r.usage_type,
       (r.quantity / t.unit)::BIGINT AS units,
       (EXTRACT(EPOCH FROM r.recorded_at) * 1000)::BIGINT AS recorded_at,
       (EXTRACT(EPOCH FROM r.occurred_at) * 1000)::BIGINT AS occurred_at, r.billing_period,
       (EXTRACT(EPOCH FROM r.quota_period) * 1000)::BIGINT AS quota_period,
       (EXTRACT(EPOCH FROM r.pool_period) * 1000)::BIGINT AS pool_period,
       r.subscription_id, r.plan_tier, r.plan_version, r.recorded_by, r.reversal_of
FROM usage_records r JOIN usage_types t USING (usage_type)
WHERE r.partition = $1 AND r.position > $2 ORDER BY r.position
"""


class Seals:
    """Checks each partition's chain from where it was checked before; a new one from its
    beginning."""

    def __init__(self) -> None:
        self._checked: dict[int, tuple[int, bytes]] = defaultdict(lambda: (0, _NOTHING))

    async def check(self, sql: db.Connection) -> list[str]:
        """What is wrong: one line for each partition whose chain is broken."""
        cursors = await sql.fetch("SELECT partition, audit_head FROM stream_cursor ORDER BY 1")
        found = []
        for partition, head in cursors:
            if broken := await self._partition(sql, partition, head):
                found.append(f"I9: the seals of partition {partition} are broken: {broken}")
        return found

    async def _partition(self, sql: db.Connection, partition: int, stored: bytes) -> str | None:
        position, head = self._checked[partition]
        seals = await sql.fetch(
            "SELECT * FROM audit_seals WHERE partition = $1 AND last_position > $2"
            " ORDER BY last_position",
            partition,
            position,
        )
        rows = [_record(row) for row in await sql.fetch(_ROWS, partition, position)]
        used = 0
        for one in seals:
            where = f"positions {one['first_position']} to {one['last_position']}"
            covered = rows[used : used + one["records"]]
            head, previous = seal(head, covered), head
            if one["previous"] != previous:
                return f"{where} do not follow from what is before"
            if one["head"] != head:
                return f"{where} are not what was sealed"
            used += len(covered)
            position = one["last_position"]
        if used != len(rows):
            return f"{len(rows)} rows, {used} of them sealed"
        if stored != head:
            return "the head is not the last seal's"
        self._checked[partition] = (position, head)
        return None


def _record(row: Any) -> UsageRecord:
    """A row as far as a seal covers it."""
    subscription, reversal = row["subscription_id"], row["reversal_of"]
    terms = Terms(
        subscription.bytes if subscription else None,
        row["plan_tier"],
        row["plan_version"],
        date.min.toordinal(),
        "month",
        "UTC",
    )
    return UsageRecord(
        stream_id="",
        usage_id=row["usage_id"],
        fingerprint=b"",
        user_id=row["user_id"],
        organization_id=row["organization_id"],
        usage_type=row["usage_type"],
        units=row["units"],
        recorded_at=row["recorded_at"],
        occurred_at=row["occurred_at"],
        billing_period=row["billing_period"],
        quota_period=row["quota_period"],
        pool_period=row["pool_period"],
        used_after=0,
        pool_used_after=None,
        remaining=None,
        exceeded=False,
        enforced=True,
        terms=terms,
        payload=Payload(None, None, None, row["recorded_by"], reversal.bytes if reversal else None),
    )
