"""One call, several partitions: each decides and keeps its own as if it had been asked alone."""

from __future__ import annotations

import pytest

from lua.scripts import Event, Outcome, Recorded
from tests.lua.kit import (
    CAP,
    PARTITION,
    USER,
    Bench,
    event,
    limit,
)

SECOND, THIRD = 7, 0  # not in the order of their numbers
STRANGER = "f" * 40

RECORDED, REPLAYED, CONFLICT, DENIED = (
    Outcome.RECORDED, Outcome.REPLAYED, Outcome.CONFLICT, Outcome.DENIED,
)  # fmt: skip
LOOK_UP, MISS, FULL, FENCED = Outcome.LOOK_UP, Outcome.MISS, Outcome.FULL, Outcome.FENCED


@pytest.fixture
async def second(bench: Bench) -> Bench:
    return await vouched(bench, SECOND)


@pytest.fixture
async def third(bench: Bench) -> Bench:
    return await vouched(bench, THIRD)


async def vouched(bench: Bench, partition: int) -> Bench:
    """Another partition of the bench's server."""
    made = Bench(bench.server, partition=partition)
    await made.vouch()
    return made


async def call(bench: Bench, *events: Event, enforce: bool = True, cap: int = CAP) -> Recorded:
    """One call, fenced partitions and all."""
    return await bench.scripts.record(events, enforce=enforce, cap=cap)


def kinds(recorded: Recorded) -> list[Outcome]:
    return [one.outcome for one in recorded.answers]


async def own(bench: Bench) -> dict[str, tuple[bytes, int]]:
    """Everything the server holds of this partition."""
    tag = f"{{p{bench.partition:02d}}}"
    return {key: held for key, held in (await bench.state()).items() if tag in key}


async def units(bench: Bench) -> list[int]:
    """Units of the partition's entries, in the stream's order."""
    return [int(fields["quota"].split()[0]) for _, fields in await bench.entries()]


async def test_each_event_goes_to_the_stream_and_counters_of_its_own_partition(
    bench: Bench, second: Bench, third: Bench
) -> None:
    benches = (bench, second, third)
    for most, one in zip((10, 200, 3000), benches, strict=True):
        await one.load(USER, limit(most=most))
    order = [PARTITION, SECOND, THIRD, SECOND, PARTITION, THIRD, SECOND]
    said = [event(1 << at, key=f"k{at}", partition=part) for at, part in enumerate(order[:-1])]
    recorded = await call(bench, *said, event(64, partition=order[-1]))

    assert kinds(recorded) == [RECORDED] * 5 + [RECORDED, RECORDED][:2]
    # 1, then 16 more of 10: denied there and only there.
