"""Peers do the work they are compared by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from bench import cpus, peers
from bench.peers import naive
from lua.connection import RedisConnection

FOLDER = Path(peers.__file__).parent


@pytest.fixture
async def client(redis: RedisConnection) -> AsyncIterator[TestClient]:  # type: ignore[type-arg]
    source = (FOLDER / "record.lua").read_text()
    sha = await redis.run("SCRIPT LOAD", source)
    for name, limit in (("quota:u", 100), ("quota:o", 7)):
        await redis.run("HSET", name, "limit:api_calls", limit)
    async with TestClient(TestServer(naive.make_app(redis.client, sha))) as made:
        yield made


async def _record(client: TestClient, key: str) -> tuple[int, bool]:  # type: ignore[type-arg]
    body = {"user_id": "u", "organization_id": "o", "usage_type": "api_calls", "quantity": 3}
    async with client.post(
        "/api/v1/billing/usage", json=body, headers={"Idempotency-Key": key}
    ) as response:
        return response.status, "Idempotent-Replayed" in response.headers


async def test_a_peer_counts_once_appends_and_keeps_the_limits(
    client: TestClient,  # type: ignore[type-arg]
    redis: RedisConnection,
) -> None:
    answers = [await _record(client, key) for key in ("a", "a", "b", "c")]
    assert answers == [(201, False), (201, True), (201, False), (429, False)]
    assert await redis.run("HGET", "quota:u", "used:api_calls") == b"6"
    assert await redis.run("HGET", "quota:o", "used:api_calls") == b"6"
    assert await redis.run("XLEN", "usage") == 2


async def test_receipts_of_the_past_are_kept_where_a_peer_looks_for_its_own(
    redis: RedisConnection,
) -> None:
    record, history = ((FOLDER / f"{name}.lua").read_text() for name in ("record", "history"))
    await redis.run("HSET", "quota:u", "limit:api_calls", 100)
    own = ("usage", peers.RECEIPTS, "quota:u", "quota:u", "u:key", "o:u", "api_calls", 3, "key")
    await redis.run("EVAL", record, 4, *own)
    for first in (0, 3_000):
        await redis.run("EVAL", history, 1, peers.RECEIPTS, first, 3_000)
    found = await redis.run("KEYS", f"{peers.RECEIPTS}*")
    assert len(found) >= 4_096
    assert sum([await redis.run("HLEN", key) for key in found]) == 6_001
    assert all([await redis.run("TTL", key) > 0 for key in found])


def test_the_node_peer_is_locked_and_its_lock_names_no_mirror() -> None:
    wanted = msgspec.json.decode((FOLDER / "fastify" / "package.json").read_bytes())
    lock = msgspec.json.decode((FOLDER / "fastify" / "package-lock.json").read_bytes())
    assert lock["packages"][""]["dependencies"] == wanted["dependencies"]
    others = [one for name, one in lock["packages"].items() if name]
    assert all(one["integrity"] and "resolved" not in one for one in others)


def test_a_peer_that_is_not_installed_says_how_to(tmp_path: Path) -> None:
    found = {peer.name: peer.missing for peer in peers.peers(tmp_path)}
    assert found["naive"] is None
    assert "--peers" in (found["fastify"] or "")


def test_pinning_ends_with_its_block() -> None:
    plan = cpus.plan()
    with cpus.pinned(plan.server):
        assert cpus.plan().every == plan.server
    assert cpus.plan() == plan
