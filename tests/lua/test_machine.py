"""Random histories: the record and correct scripts and their model never differ."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from gateway.dev.servers import Valkey
from lua.connection import RedisConnection
from tests.lua.corrections import CorrectionMachine
from tests.lua.kit import Server
from tests.lua.machine import RecordMachine


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.parametrize(("kind", "examples"), [(RecordMachine, 40), (CorrectionMachine, 60)])
def test_every_history_goes_as_the_model_says(
    valkey: Valkey, loop: asyncio.Runner, kind: type[RecordMachine], examples: int
) -> None:
    connection = RedisConnection(valkey.url)

    async def begin() -> Server:
        await connection.run("FLUSHALL")
        return connection

    class Machine(kind):  # type: ignore[misc, valid-type]
        start = staticmethod(begin)

    Machine.loop = loop
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=20,
                deadline=None,
                phases=[Phase.generate],  # shrinking a history takes longer than a test may
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        loop.run(connection.close())
