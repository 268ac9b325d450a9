"""Many cold accounts at once, as after a loss of Redis: what gates a whole partition goes first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ledger import db
from ledger.domain.ids import dev_uuid
from ledger.entitlements import Loader
from lua import keys
from lua.keys import Account, partition_of
from lua.types import Missing
from tests.conftest import Service

COLD = [Account(dev_uuid(f"user-{number}"), None).who for number in range(12)]
WITHIN_S = 5.0  # of a hang, not of a busy machine


async def test_a_partition_is_vouched_for_while_every_load_waits_for_postgres(
    service: Service, postgres_pool: db.Pool, database_url: str
) -> None:
    loader = Loader(postgres_pool, service.scripts, "basic", service.settings.partitions)
    seconds, _ = await service.redis.run("TIME")

    async def load(who: bytes) -> None:
        partition = partition_of(who, service.settings.partitions)
        await loader.load(partition, who, Missing.USER, int(seconds) * 1000)

    for partition in range(service.settings.partitions):
        await loader.recover(partition, 0.0)
    async with _nobody_reads_subscriptions(database_url):
        loads = [asyncio.create_task(load(who)) for who in COLD]
        await _some_wait(service.sql)
        await service.redis.run("DEL", keys.meta(0))
        await asyncio.wait_for(loader.look_back(0, "0-0"), WITHIN_S)
        assert await service.redis.run("EXISTS", keys.meta(0))
        assert not any(one.done() for one in loads)
    await asyncio.gather(*loads)
    assert len(await service.redis.run("KEYS", "quota:*")) == len(COLD)


async def test_who_finds_no_connection_is_told_so_and_does_not_wait_for_ever(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "ACQUIRE_S", 0.05)
    async with db.pool(database_url, 1) as pool, pool.acquire():
        async with asyncio.timeout(WITHIN_S):
            with pytest.raises(db.UNAVAILABLE):
                await pool.fetchval("SELECT 1")


@asynccontextmanager
async def _nobody_reads_subscriptions(database_url: str) -> AsyncIterator[None]:
    """Holds up every load, and nothing else."""
    connection = await db.connect(database_url, patient=True)
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            await connection.execute("LOCK TABLE subscriptions IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def _some_wait(sql: db.Connection) -> None:
    waiting = (
        "SELECT EXISTS (SELECT FROM pg_locks"
        " WHERE relation = 'subscriptions'::REGCLASS AND NOT granted)"
    )
    async with asyncio.timeout(WITHIN_S):
        while not await sql.fetchval(waiting):  # noqa: ASYNC110 - Postgres does not tell
            await asyncio.sleep(0.01)
