"""Has every quota loaded anew: the default tier has a new version, and most accounts are on it.

Twice: a load that began before the change may write what it has read after the first time. It ends
within `SETTLED_S`, and the second time overtakes it.
"""

from __future__ import annotations

import re
from collections import defaultdict

from ledger import store
from ledger.db import Connection, Executor
from lua.cluster import Cluster
from lua.connection import RedisConnection
from lua.scripts import Scripts

TOPIC = "reload"
TIMES = 2
SETTLED_S = 15  # longer than a load may take
KEYS = 1000  # looked at by one command: a fraction of a millisecond of Redis' time
_QUOTA = re.compile(r"quota:\{p(\d+)\}:(.+)")


async def owe(db: Executor) -> None:
    """Notes it, in the transaction that makes it so."""
    await store.outbox.insert(db, TOPIC, "{}")


async def run_once(
    db: Connection, redis: Cluster[RedisConnection], scripts: Scripts, partitions: int
) -> int:
    """Does what is due; how often."""
    due = await store.outbox.due(db, TOPIC, 1)
    for outbox_id in due:
        if await store.outbox.claim(db, outbox_id, SETTLED_S) is not None:
            await _unload_all(db, redis, scripts, partitions)
            await store.outbox.done_after(db, outbox_id, TIMES)
    return len(due)


async def _unload_all(
    db: Connection, redis: Cluster[RedisConnection], scripts: Scripts, partitions: int
) -> None:
    revisions = {}
    for partition in range(partitions):
        async with db.transaction():
            await store.hold_cursor(db, partition)
            revisions[partition] = await store.bump_revision(db, partition)
    for server in (await redis.primaries()).values():
        at = 0
        while True:
            at, keys = await server.run("SCAN", at, "MATCH", "quota:*", "COUNT", KEYS)
            found: dict[int, list[str]] = defaultdict(list)
            for key in keys:
                if match := _QUOTA.fullmatch(key.decode()):
                    found[int(match[1])].append(match[2])
            for partition, subjects in found.items():
                await scripts.unload(partition, subjects, revision=revisions[partition])
            at = int(at)
            if at == 0:
                break
