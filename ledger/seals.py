"""Verifies the hash chain over the usage records: each partition's seals, recomputed from rows."""

from __future__ import annotations

from hashlib import sha256

from ledger import store
from ledger.db import Connection
from ledger.domain.usage import UsageRecord, seal

FIRST_HEAD = sha256(b"").digest()


class SealBroken(Exception):
    """A record was changed, added or removed since it was sealed; the message names the place."""


async def verify_seals(connection: Connection) -> int:
    """Recomputes every seal; how many records they cover. A page of rows is in memory at a time.
    Raises `SealBroken`."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        places = await store.usage_types(connection)
        covered = 0
        for partition, head in (await store.audit_heads(connection)).items():
            covered += await _verify(connection, partition, head, places)
        return covered


async def _verify(
    connection: Connection, partition: int, newest: bytes, places: dict[str, int]
) -> int:
    records = store.sealed_records(connection, partition, places)
    head, total = FIRST_HEAD, 0
    async for one in store.seals(connection, partition):
        covered: list[UsageRecord] = []
        for expected in range(one.first_position, one.last_position + 1):
            found = await anext(records, None)
            if found is None or found[0] != expected:
                raise SealBroken(f"partition {partition}: no record at position {expected}")
            covered.append(found[1])
        if one.previous != head or one.head != seal(head, covered) or one.records != len(covered):
            raise SealBroken(
                f"partition {partition}: the seal of positions {one.first_position} to "
                f"{one.last_position} does not fit its records"
            )
        head = one.head
        total += len(covered)
    if found := await anext(records, None):
        raise SealBroken(f"partition {partition}: no seal covers position {found[0]}")
    if head != newest:
        raise SealBroken(f"partition {partition}: the newest seals are missing")
    return total
