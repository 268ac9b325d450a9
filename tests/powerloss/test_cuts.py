"""The power fails at any byte of Redis's file: what a script wrote is there whole or not at all,
and what was answered and is gone is missed."""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from chaos import history
from gateway.dev.servers import Valkey
from lua.connection import RedisConnection
from lua.types import Event, Fenced, LookedUp, Outcome, RecoveryOutcome
from tests.lua.kit import MEMBER, OTHER_MEMBER, POOL, USER, Bench, event, limit

SUBJECTS = (USER, MEMBER, OTHER_MEMBER, POOL)
EVENTS = {
    key: event(units, key=key, who=who)
    for key, units, who in (
        ("a", 1, USER), ("b", 2, USER), ("c", 3, MEMBER), ("d", 4, OTHER_MEMBER), ("e", 5, USER),
        ("f", 6, MEMBER), ("g", 7, USER), ("h", 8, OTHER_MEMBER),
    )
}  # fmt: skip
# Singles, several at once, a refused one, one that is only answered again, two that came twice.
CALLS = ("a", "bc", "d", "X", "a", "efg", "hbc")
REFUSED = event(1_000, key="X")


class Written(msgspec.Struct):
    """The file after a step: its size, all that the server held, keys that were answered for."""

    size: int
    state: dict[str, tuple[bytes, int]]
    answered: frozenset[str]


class Recorded(msgspec.Struct):
    replid: str
    last_id: str
    steps: list[Written]
    file: bytes


@asynccontextmanager
async def opened(server: Valkey) -> AsyncIterator[Bench]:
    redis = RedisConnection(server.url)
    try:
        yield Bench(redis)
    finally:
        await redis.close()


async def record_all(server: Valkey) -> Recorded:
    """A partition from its first vouching on, step by step."""
    answered: set[str] = set()
    steps = [Written(0, {}, frozenset())]

    async def written() -> None:
        size = history.size(server.folder)
        steps.append(Written(size, await bench.state(), frozenset(answered)))

    async with opened(server) as bench:
        replid = (await bench.vouch()).replid
        await written()
        for subject in SUBJECTS:
            await bench.load(subject, limit(most=100))
            await written()
        last_id = "0-0"
        for call in CALLS:
            events = [EVENTS.get(key, REFUSED) for key in call]
            recorded = await bench.record(*events, touch=call == "a" and "a" in answered)
            answered |= set(call) & EVENTS.keys()
            last_id = max([last_id, *recorded.last_ids.values()])
            await written()
    server.kill()
    await server.wait()
    [path] = (server.folder / "appendonlydir").glob("*.incr.aof")
    return Recorded(replid, last_id, steps, path.read_bytes())


def places(file: bytes, sample: int | None) -> list[int]:
    """Every place where the file can end; or as many, most of them near the end of a script."""
    if sample is None:
        return list(range(len(file) + 1))
    dice = random.Random(7)
    end = b"EXEC\r\n"
    ends = [at + len(end) for at in range(len(file)) if file.startswith(end, at)]
    near = {place for one in ends for place in (one - 1, one, one + 1) if place <= len(file)}
    inside = set(range(len(file))) - near
    chosen = dice.sample(sorted(near), sample * 2 // 3) + dice.sample(sorted(inside), sample // 3)
    return sorted({0, len(file), *chosen})


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Valkey]:
    async with Valkey(tmp_path) as started:
        yield started


@pytest.mark.timeout(7200)
async def test_a_file_cut_anywhere_holds_whole_scripts_and_what_is_gone_is_missed(
    server: Valkey, tmp_path: Path, sample: int | None
) -> None:
    recorded = await record_all(server)
    shutil.copytree(server.folder / "appendonlydir", tmp_path / "whole")
    outcomes = set()
    for place in places(recorded.file, sample):
        shutil.rmtree(server.folder / "appendonlydir")
        shutil.copytree(tmp_path / "whole", server.folder / "appendonlydir")
        [path] = (server.folder / "appendonlydir").glob("*.incr.aof")
        path.write_bytes(recorded.file[:place])
        await server.start()
        try:
            async with opened(server) as bench:
                outcomes.add(await check(bench, recorded, place))
        finally:
            server.kill()
            await server.wait()
    assert outcomes == {RecoveryOutcome.WHOLE, RecoveryOutcome.LOST}


async def check(bench: Bench, recorded: Recorded, place: int) -> RecoveryOutcome:
    left = [one for one in recorded.steps if one.size <= place][-1]
    assert await bench.state() == left.state, f"{place}: a part of a script"
    with pytest.raises(Fenced):
        await bench.record(EVENTS["a"])
    found = await bench.vouch(row_replid=recorded.replid, acked=recorded.last_id)
    whole = left.answered == EVENTS.keys()
    assert (found.outcome is RecoveryOutcome.WHOLE) == whole, place
    for _ in range(2):
        assert await sent_again(bench, left.answered) == EVENTS.keys(), place
    for subject in SUBJECTS:
        units = sum(one.units for one in EVENTS.values() if one.who.startswith(subject))
        assert await bench.used(subject) == units, f"{place}: counted otherwise than recorded"
    ids = [fields["id"] for _, fields in await bench.entries() if "recovery" not in fields]
    assert sorted(ids) == sorted(one.usage_id for one in EVENTS.values()), place
    return found.outcome


async def sent_again(bench: Bench, kept: frozenset[str]) -> set[str]:
    """Retries every key as callers do, and gateways for them; those that are answered for. A key
    that the file still holds must not count again."""
    answered = set()
    for key, first in EVENTS.items():
        entries = len(await bench.entries())
        outcome = await _sent(bench, first)
        if key in kept:
            assert (outcome, len(await bench.entries())) == (Outcome.REPLAYED, entries)
        if outcome in (Outcome.RECORDED, Outcome.REPLAYED):
            answered.add(key)
    return answered


async def _sent(bench: Bench, first: Event) -> Outcome:
    for _ in range(3):
        outcome = (await bench.record(first)).answers[0].outcome
        if outcome is Outcome.MISS:
            await _load(bench)
        elif outcome is Outcome.LOOK_UP:  # nothing is drained, so the ledger knows of no key
            first = msgspec.structs.replace(first, looked_up=LookedUp.UNKNOWN)
        else:
            return outcome
    raise AssertionError(outcome)


async def _load(bench: Bench) -> None:
    """From an empty ledger: the script adds what is in the stream."""
    for subject in SUBJECTS:
        await bench.load(subject, limit(most=100))
