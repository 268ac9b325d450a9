"""Verifies the hash chain over the usage records: each partition's seals, recomputed from rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from hashlib import sha256

from ledger import store
from ledger.db import Connection
from ledger.domain.usage import UsageRecord, seal

FIRST_HEAD = sha256(b"").digest()


class SealBroken(Exception):
    """A record was changed, added or removed since it was sealed; the message names the place."""

    def __init__(self, partition: int, what: str) -> None:
        super().__init__(f"partition {partition}: {what}")
        self.partition, self.what = partition, what


class Chains:
    """The chains of all partitions. Each look goes on from where the last one found them whole."""

    def __init__(self) -> None:
        self._whole: dict[int, tuple[int, bytes]] = defaultdict(lambda: (0, FIRST_HEAD))

    async def verify(self, connection: Connection) -> tuple[int, list[SealBroken]]:
        """Recomputes the seals that are new; how many records they cover, and the first break of
        each broken chain. A page of rows is in memory at a time."""
        covered, broken = 0, []
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            decimals = await store.usage_types(connection)
            for partition, newest in (await store.audit_heads(connection)).items():
                try:
                    covered += await self._verify(connection, partition, newest, decimals)
                except SealBroken as error:
                    broken.append(error)
        return covered, broken

    async def _verify(
        self, connection: Connection, partition: int, newest: bytes, decimals: Mapping[str, int]
    ) -> int:
        position, head = self._whole[partition]
        records, total = store.sealed_records(connection, partition, position, decimals), 0
        async for one in store.seals(connection, partition, position):
            covered: list[UsageRecord] = []
            for expected in range(one.first_position, one.last_position + 1):
                found = await anext(records, None)
                if found is None or found[0] != expected:
                    raise SealBroken(partition, f"no record at position {expected}")
                covered.append(found[1])
            fits = one.previous == head and one.head == seal(head, covered)
            if not fits or one.records != len(covered):
                span = f"{one.first_position} to {one.last_position}"
                raise SealBroken(
                    partition, f"the seal of positions {span} does not fit its records"
                )
            position, head = one.last_position, one.head
            total += len(covered)
        if found := await anext(records, None):
            raise SealBroken(partition, f"no seal covers position {found[0]}")
        if head != newest:
            raise SealBroken(partition, "the newest seals are missing")
        self._whole[partition] = position, head
        return total


async def verify_seals(connection: Connection) -> int:
    """Recomputes every seal; how many records they cover. Raises `SealBroken` for the first."""
    covered, broken = await Chains().verify(connection)
    if broken:
        raise broken[0]
    return covered
