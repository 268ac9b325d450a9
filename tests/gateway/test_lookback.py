"""What a gateway answered for is asked of every server, whichever of them is lost."""

from __future__ import annotations

import asyncio

import pytest

from gateway import lookback
from gateway.lookback import LookBack
from lua.connection import RedisUnavailable


class Servers:
    """A loader whose first partitions are on a server that is lost."""

    def __init__(self, lost: set[int]) -> None:
        self.lost = lost
        self.asked: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

    async def look_back(self, partition: int, acked: str) -> None:
        await asyncio.sleep(0)
        if partition in self.lost:
            raise RedisUnavailable("connection refused", outcome_unknown=False)
        self.asked.put_nowait((partition, acked))


async def test_a_server_that_is_lost_keeps_no_other_from_being_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookback, "AGAIN_S", 0)
    servers = Servers({0, 1})
    look_back = LookBack(servers, {0: "7-0", 1: "8-0", 2: "9-0"})  # type: ignore[arg-type]
    look_back.connected()
    task = asyncio.create_task(look_back.for_ever())
    try:
        async with asyncio.timeout(5):
            assert await servers.asked.get() == (2, "9-0")
            servers.lost = set()
            assert {await servers.asked.get() for _ in range(2)} == {(0, "7-0"), (1, "8-0")}
    finally:
        task.cancel()
