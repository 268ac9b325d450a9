"""`./run recalculate`: makes the quotas of a user or an organisation anew from the rows.

Under live traffic: totals are set while the partition's cursor row is held, so that no drain adds
to them meanwhile; the quota is then unloaded, and the next request loads it from what is right.
"""

from __future__ import annotations

from collections import defaultdict
from uuid import UUID

from ledger import clock, store
from ledger.db import Connection
from ledger.reconcile.counters import Counters
from ledger.reconcile.rows import total_words, wrong_totals_of
from lua import keys
from lua.connection import RedisConnection
from lua.scripts import Scripts


class Recalculated:
    """`subjects`: what was made anew. `wrong`: what had not agreed, in words."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.wrong: list[str] = []


async def recalculate(
    connection: Connection,
    redis: RedisConnection,
    identifier: UUID,
    *,
    partitions: int,
    actor: str,
) -> Recalculated:
    """Everything counted under an id: of a user every account, of an organisation its pool and
    members. Raises `Fenced` or `NotCompared`; then nothing was done to that partition."""
    result, scripts = Recalculated(), Scripts(redis)
    for partition, subjects in (await _by_partition(connection, identifier, partitions)).items():
        wrong = []
        async for _, found in Counters(connection, scripts).compare(partition, subjects):
            wrong += [one.what for one in found]
        async with connection.transaction():
            await store.hold_cursor(connection, partition)
            for total in await wrong_totals_of(connection, subjects):
                await store.set_total(connection, total)
                wrong.append(total_words(total))
            await store.forget_findings(connection, partition, subjects)
            revision = await store.bump_revision(connection, partition)
            details = {"partition": partition, "subjects": subjects, "wrong": wrong}
            await store.insert_audit_event(
                connection, "quota_recalculated", actor, details, clock.now()
            )
        await scripts.unload(partition, subjects, revision=revision)
        result.subjects += subjects
        result.wrong += wrong
    return result


async def _by_partition(
    connection: Connection, identifier: UUID, partitions: int
) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for subject in await store.subjects_of(connection, identifier):
        found[keys.partition_of(keys.subject_of(subject), partitions)].append(subject)
    return found
