"""`./run recalculate`: makes the quotas of a user or an organisation anew from the rows, and what
it is to be invoiced for.

Under live traffic: totals are set while the partition's cursor row is held, so that no drain adds
to them meanwhile; the quota is then unloaded, and the next request loads it from what is right.
A few subjects at a time, each with totals of its own: the drain goes on in between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from ledger import clock, store
from ledger.db import Connection
from ledger.reconcile.counters import Counters
from ledger.reconcile.rows import billable_words, total_words, wrong_totals_of
from lua import keys
from lua.scripts import Connection as Redis
from lua.scripts import Scripts

# Subjects for which one transaction holds the cursor row: each takes milliseconds, or as long as it
# takes to read all rows of an organisation for its pool.
CHUNK = 50


class Recalculated:
    """`subjects`: what was made anew. `wrong`: what had not agreed, in words."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.wrong: list[str] = []


async def recalculate(
    connection: Connection,
    redis: Redis,
    identifier: UUID,
    *,
    partitions: int,
    actor: str,
) -> Recalculated:
    """Everything counted under an id: of a user every account, of an organisation its pool and
    members. Raises `Fenced`, `NotCompared` or `ledger.db.LockNotAvailable`; what was made anew
    before that stays so, and the same call again does the rest."""
    result, scripts = Recalculated(), Scripts(redis)
    counters = Counters(connection, scripts)
    for partition, subjects in (await _by_partition(connection, identifier, partitions)).items():
        for at in range(0, len(subjects), CHUNK):
            chunk = subjects[at : at + CHUNK]
            wrong = []
            async for _, found in counters.compare(partition, chunk):
                wrong += [one.what for one in found]
            revision = await _set_totals(connection, partition, chunk, wrong, actor)
            await scripts.unload(partition, chunk, revision=revision)
            result.subjects += chunk
            result.wrong += wrong
    for partition in sorted(
        {one.partition for one in await store.billable.wrong(connection, identifier)}
    ):
        result.wrong += await _set_billable(connection, partition, identifier, actor)
    return result


async def _set_totals(
    connection: Connection, partition: int, subjects: Sequence[str], wrong: list[str], actor: str
) -> int:
    """Makes the totals of some subjects what their rows say, and adds to `wrong` which were not;
    the partition's revision from then on."""
    async with connection.transaction():
        await store.hold_cursor(connection, partition)
        for total in await wrong_totals_of(connection, subjects):
            await store.set_total(connection, total)
            wrong.append(total_words(total))
        await store.forget_findings(connection, partition, subjects)
        details = {"partition": partition, "subjects": subjects, "wrong": wrong}
        await store.insert_audit_event(
            connection, "quota_recalculated", actor, details, clock.now()
        )
        return await store.bump_revision(connection, partition)


async def _set_billable(
    connection: Connection, partition: int, payer: UUID, actor: str
) -> list[str]:
    """Makes what is to be invoiced what the rows of a partition say; what did not agree. No quota
    depends on it."""
    async with connection.transaction():
        await store.hold_cursor(connection, partition)
        found = await store.billable.wrong(connection, payer)
        found = [one for one in found if one.partition == partition]
        for one in found:
            await store.billable.put(connection, one)
        wrong = [billable_words(one) for one in found]
        mended = {one.subscription_id for one in found}
        await store.forget_findings(connection, partition, [], sorted(mended))
        await store.insert_audit_event(
            connection,
            "billable_recalculated",
            actor,
            {"partition": partition, "wrong": wrong},
            clock.now(),
        )
    return wrong


async def _by_partition(
    connection: Connection, identifier: UUID, partitions: int
) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for subject in await store.subjects_of(connection, identifier):
        found[keys.partition_of(keys.subject_of(subject), partitions)].append(subject)
    return found
