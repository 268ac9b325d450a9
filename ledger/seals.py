"""Verifies the hash chain over the usage records: each partition's seals, recomputed from rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from hashlib import sha256

from ledger import store
from ledger.db import Connection
from ledger.domain.usage import UsageRecord, seal
from ledger.store.seals import Seal

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

    async def verify(
        self, connection: Connection, through: Mapping[int, int] | None = None
    ) -> tuple[int, list[SealBroken]]:
        """Recomputes the seals that are new; how many records they cover, and the first break of
        each broken chain. A page of rows is in memory at a time. `through`: of these partitions
        alone, and up to these positions."""
        covered, broken = 0, []
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            decimals = await store.usage_types(connection)
            heads = await store.audit_heads(connection)
            for partition in heads if through is None else through:
                last = None if through is None else through[partition]
                newest = heads[partition]
                try:
                    covered += await self._verify(connection, partition, newest, decimals, last)
                except SealBroken as error:
                    broken.append(error)
        return covered, broken

    async def _verify(
        self,
        connection: Connection,
        partition: int,
        newest: bytes,
        decimals: Mapping[str, int],
        through: int | None,
    ) -> int:
        position, head = self._whole[partition]
        records, total = store.sealed_records(connection, partition, position, decimals), 0
        async for one in store.seals(connection, partition, position):
            covered = await _covered(partition, one, records)
            if not _fits(one, head, covered):
                span = f"{one.first_position} to {one.last_position}"
                raise SealBroken(
                    partition, f"the seal of positions {span} does not fit its records"
                )
            position, head = one.last_position, one.head
            total += len(covered)
            if through is not None and position >= through:
                return total
        if found := await anext(records, None):
            raise SealBroken(partition, f"no seal covers position {found[0]}")
        if head != newest:
            raise SealBroken(partition, "the newest seals are missing")
        self._whole[partition] = position, head
        return total


async def _covered(
    partition: int, one: Seal, records: AsyncIterator[tuple[int, UsageRecord]]
) -> list[UsageRecord]:
    """The records of a seal, in order: all of them, or as many as a purge left."""
    covered: list[UsageRecord] = []
    if one.kept is not None:
        for _ in range(one.kept):
            found = await anext(records, None)
            if found is None or not one.first_position <= found[0] <= one.last_position:
                raise SealBroken(partition, f"no record before position {one.last_position + 1}")
            covered.append(found[1])
        return covered
    for expected in range(one.first_position, one.last_position + 1):
        found = await anext(records, None)
        if found is None or found[0] != expected:
            raise SealBroken(partition, f"no record at position {expected}")
        covered.append(found[1])
    return covered


def _fits(one: Seal, head: bytes, covered: list[UsageRecord]) -> bool:
    """Whether a seal follows a head and is of these records. One that records were purged of is
    an anchor: it says the head by itself, and covers what is left by another hash."""
    if one.kept is None:
        is_whole = one.head == seal(head, covered) and one.records == len(covered)
    else:
        is_whole = one.kept_head == (seal(one.head, covered) if one.kept else None)
    return one.previous == head and is_whole


async def verify_seals(connection: Connection) -> int:
    """Recomputes every seal; how many records they cover. Raises `SealBroken` for the first."""
    covered, broken = await Chains().verify(connection)
    if broken:
        raise broken[0]
    return covered
