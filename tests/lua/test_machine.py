"""Random histories: the record script and its model never differ."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha1
from typing import Any

import pytest
from fakeredis.aioredis import FakeRedis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from redis import exceptions

from gateway.dev.servers import Valkey
from lua.connection import RedisConnection
from lua.scripts import NoScript
from tests.lua.header import SHEBANG
from tests.lua.kit import NOON_MS, PARTITION, POOL, USER, Bench, Server, event, limit
from tests.lua.machine import RecordMachine

# fakeredis has no INFO in Lua.
NO_INFO = {"server_replid": "local function server_replid() return 'test' end"}


def sha_of(source: str) -> str:
    return sha1(source.encode(), usedforsecurity=False).hexdigest()


class FakeConnection:
    """The scripts' connection over fakeredis, whose Lua does not take the line that names flags."""

    def __init__(self) -> None:
        self.client = FakeRedis()
        self._shas: dict[str, str] = {}

    async def evalsha(self, sha: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            return await self.run("EVALSHA", self._shas.get(sha, sha), len(keys), *keys, *args)
        except exceptions.NoScriptError:
            raise NoScript from None

    async def script_load(self, source: str) -> None:
        taken = source.removeprefix(SHEBANG)
        self._shas[sha_of(source)] = sha_of(taken)
        await self.run("SCRIPT LOAD", taken)

    async def run(self, *command: Any) -> Any:
        return await self.client.execute_command(*command)  # type: ignore[no-untyped-call]


def run_machine(loop: asyncio.Runner, start: Callable[[], Any], examples: int, steps: int) -> None:
    class Machine(RecordMachine):
        pass

    Machine.loop = loop
    Machine.start = staticmethod(start)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=[Phase.generate],  # shrinking a history takes longer than a test may
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def test_on_a_real_server_every_history_goes_as_the_model_says(
    valkey: Valkey, loop: asyncio.Runner
) -> None:
    connection = RedisConnection(valkey.url)

    async def start() -> tuple[Server, dict[str, str]]:
        await connection.run("FLUSHALL")
        return connection, {}

    try:
        run_machine(loop, start, examples=50, steps=20)
    finally:
        loop.run(connection.close())


def test_on_fakeredis_every_history_goes_as_the_model_says(loop: asyncio.Runner) -> None:
    connection = FakeConnection()

    async def start() -> tuple[Server, dict[str, str]]:
        await connection.run("FLUSHALL")
        return connection, NO_INFO

    run_machine(loop, start, examples=20, steps=12)


async def test_every_script_runs_on_fakeredis() -> None:
    bench = Bench(FakeConnection(), NOON_MS * 1000, NO_INFO)
    assert (await bench.vouch()).replid == "test"
    await bench.load(USER, limit(most=5))
    await bench.load(POOL, limit(most=5))
    last_id = (await bench.record(event(2, key="k"), event(2, key="k"))).last_ids[PARTITION]
    assert (await bench.check(4)).outcome.name == "DENIED"
    assert (await bench.scripts.quota(PARTITION, USER, None)).user["used:calls"] == b"2"
    tail = await bench.scripts.read(PARTITION, after="0-0", count=10)
    assert ([one for one, _ in tail.entries], tail.last_id) == ([last_id], last_id)
    trimmed = await bench.scripts.trim(PARTITION, replid="test", drained=1, through=last_id)
    assert trimmed == 1
