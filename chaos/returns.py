"""How soon the service is back: usage is taken again once Redis answers, and every partition is
drained again once a ledger is gone."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from itertools import count

from chaos.accounts import PARTITIONS, Accounts
from chaos.clients import Clients, unit
from chaos.stand import Stand
from gateway.client.transport import Answer, Http
from ledger import db, store
from lua import keys
from lua.connection import RedisConnection, RedisUnavailable

_POLL_S = 0.01
_numbers = count(1)


async def taken_again(
    stand: Stand, clients: Clients, accounts: Accounts, refusals: Counter[str]
) -> None:
    """Returns when a record was accepted on every partition; what was answered instead, until
    then, is counted in `refusals`. Asks the gateway itself, past the relay of its clients."""
    host, port = stand.gateway.address
    http = Http(f"http://{host}:{port}", stand.token, PARTITIONS)
    dice = random.Random(0)

    async def one(partition: int) -> None:
        def heard(answer: Answer) -> None:
            if not answer.ok:
                refusals[f"partition {partition}: {answer.document.get('detail')}"] += 1

        sent = unit(accounts.of_partition(partition), f"probe-{next(_numbers)}", dice)
        while await clients.attempt(http, [sent], heard):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(_POLL_S)

    try:
        await asyncio.gather(*map(one, range(PARTITIONS)))
    finally:
        await http.close()


async def drained_again(stand: Stand) -> None:
    """Returns when the ledger has all that is in the streams at this moment."""
    newest: list[str] | None = None
    while True:
        try:
            newest = newest or await _newest(stand)
            async with stand.opened() as system:
                while not _reached(await store.cursors(system.sql), newest):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)
            return
        except (*db.UNAVAILABLE, db.PostgresError, RedisUnavailable):
            await asyncio.sleep(_POLL_S)


def _reached(rows: Sequence[store.Cursor], ends: Sequence[str]) -> bool:
    return not any(keys.before(row.last_id, end) for row, end in zip(rows, ends, strict=True))


async def _newest(stand: Stand) -> list[str]:
    """The last id of each stream."""
    redis = RedisConnection(stand.redis.url)
    try:
        found = [
            await redis.run("XREVRANGE", keys.stream(one), "+", "-", "COUNT", 1)
            for one in range(PARTITIONS)
        ]
    finally:
        await redis.close()
    return [entries[0][0].decode() if entries else "0-0" for entries in found]
