"""Benches on the real server. No test may leave a key behind that lives for ever."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from lua.connection import RedisConnection
from tests.lua.kit import NOON_MS, Bench


async def assert_only_stream_and_meta_live_for_ever(bench: Bench) -> None:
    for key in await bench.keys():
        if not re.fullmatch(r"(usage|meta):\{p\d\d\}", key):
            assert key.startswith(("quota:", "receipt:")), f"{key}: what is this?"
            assert await bench.server.run("TTL", key) > 0, f"{key} has no TTL"


@pytest.fixture
async def bench(redis: RedisConnection) -> AsyncIterator[Bench]:
    """A new partition that has been vouched for, by the server's own clock."""
    made = Bench(redis)
    await made.vouch()
    yield made
    await assert_only_stream_and_meta_live_for_ever(made)


@pytest.fixture
async def still(redis: RedisConnection) -> AsyncIterator[Bench]:
    """The same with a clock that stands at noon until the test moves it."""
    made = Bench(redis, NOON_MS * 1000)
    await made.vouch()
    yield made
    await assert_only_stream_and_meta_live_for_ever(made)
