"""Reading for the drain, and trimming what was drained long enough ago."""

from __future__ import annotations

import pytest

from lua.standing import Standing
from tests.entries import entry_in_words
from tests.lua.kit import PARTITION, USER, Bench, event, limit


async def filled(bench: Bench, count: int) -> list[str]:
    """Ids of so many entries."""
    await bench.load(USER, limit(most=None))
    await bench.record(*(event(number + 1) for number in range(count)))
    return [one for one, _ in await bench.entries()]


async def trim(bench: Bench, drained: int, through: str, replid: str | None = None) -> int:
    said = (await bench.meta())["replid"] if replid is None else replid
    return await bench.scripts.trim(PARTITION, replid=said, drained=drained, through=through)


async def test_an_empty_partition_has_no_entries_but_an_identity(bench: Bench) -> None:
    tail = await bench.scripts.read(PARTITION, after="0-0", count=10)
    meta = await bench.meta()
    assert (tail.replid, tail.epoch) == (meta["replid"], 1)
    assert (tail.last_id, tail.entries) == ("0-0", [])


async def test_entries_are_read_in_order_after_the_cursor(bench: Bench) -> None:
    ids = await filled(bench, 5)
    before = await bench.state()
    tail = await bench.scripts.read(PARTITION, after=ids[1], count=2)
    assert [one for one, _ in tail.entries] == ids[2:4]
    found = [(one, entry_in_words(fields)) for one, fields in tail.entries]
    assert found == (await bench.entries())[2:4]
    assert tail.last_id == ids[-1]
    assert (await bench.scripts.read(PARTITION, after=ids[-1], count=2)).entries == []
    look = await bench.scripts.read(PARTITION, after="0-0", count=0)
    assert (look.last_id, look.entries) == (ids[-1], [])
    assert await bench.state() == before


async def test_a_stream_trimmed_to_nothing_still_knows_its_last_id(bench: Bench) -> None:
    ids = await filled(bench, 3)
    assert await trim(bench, 3, ids[-1]) == 3
    tail = await bench.scripts.read(PARTITION, after="0-0", count=10)
    assert (tail.last_id, tail.entries) == (ids[-1], [])


async def test_trimming_removes_exactly_what_was_named_and_remembers_the_floor(
    bench: Bench,
) -> None:
    ids = await filled(bench, 5)
    assert await trim(bench, 4, ids[2]) == 3
    assert [one for one, _ in await bench.entries()] == ids[3:]
    meta = await bench.meta()
    assert (meta["floor"], meta["drained"], meta["retained"]) == (ids[2], "4", "1")
    assert (await bench.standing()).undrained == 1


async def test_without_an_id_only_the_drained_count_is_told(bench: Bench) -> None:
    ids = await filled(bench, 3)
    assert await trim(bench, 2, "") == 0
    assert len(await bench.entries()) == len(ids)
    meta = await bench.meta()
    assert (meta["floor"], meta["drained"], meta["retained"]) == ("0-0", "2", "2")
    assert (await bench.standing()).undrained == 1


async def test_before_anything_was_drained_every_entry_waits(bench: Bench) -> None:
    replid = (await bench.meta())["replid"]
    assert await bench.standing() == Standing(replid, 0)
    await filled(bench, 3)
    assert await bench.standing() == Standing(replid, 3)


async def test_a_partition_that_nobody_vouched_for_has_no_server(bench: Bench) -> None:
    await bench.server.run("FLUSHALL")
    assert await bench.standing() == Standing(None, 0)
    await bench.server.run("XADD", bench.stream_key, "5-0", "recovery", "1")
    assert await bench.standing() == Standing(None, 1)


async def test_what_is_retained_and_what_waits_are_right_after_every_trim(bench: Bench) -> None:
    """Entries come in between; a report may be repeated, and a trim without one come late."""
    ids = await filled(bench, 6)
    told = [
        # more entries, drained in all, removed up to so many; retained
        (0, 0, 0, 0),
        (0, 2, 0, 2),
        (0, 2, 0, 2),
        (3, 2, 1, 1),
        (0, 5, 1, 4),
        (0, 5, 5, 0),
        (2, 5, 5, 0),
        (0, 5, 3, 0),
        (0, 9, 5, 4),
        (1, 11, 8, 3),
        (0, 12, 12, 0),
    ]
    for more, drained, removed, retained in told:
        await bench.record(*(event(1) for _ in range(more)))
        ids += [one for one, _ in await bench.entries() if one not in ids]
        held = len(await bench.entries())
        through = ids[removed - 1] if removed else ""
        trimmed = await trim(bench, drained, through)
        entries = [one for one, _ in await bench.entries()]
        assert trimmed == held - len(entries)
        meta = await bench.meta()
        assert (meta["drained"], meta["retained"]) == (str(drained), str(retained))
        assert (await bench.standing()).undrained == len(ids) - drained
        assert entries == ids[drained - retained :]


async def test_a_report_that_comes_late_is_mended_by_the_next(bench: Bench) -> None:
    """Two ledgers report outside of their transactions, so in any order."""
    ids = await filled(bench, 6)
    for drained, through in ((4, ids[3]), (2, ""), (4, ids[1]), (3, "")):
        await trim(bench, drained, through)
        assert (await bench.standing()).undrained >= 2  # never less than there is
    await trim(bench, 5, ids[2])
    assert (await bench.standing()).undrained == 1
    assert (await bench.meta())["retained"] == "1"


async def test_the_floor_never_sinks(bench: Bench) -> None:
    ids = await filled(bench, 5)
    await trim(bench, 3, ids[2])
    for lower in (ids[0], ids[2], "0-0"):
        assert await trim(bench, 3, lower) == 0
        assert (await bench.meta())["floor"] == ids[2]


async def test_trimming_between_ids_keeps_the_later_one(bench: Bench) -> None:
    for number in ("5-1", "5-3", "6-0"):
        await bench.server.run("XADD", bench.stream_key, number, "recovery", "1")
    assert await trim(bench, 1, "5-2") == 1
    assert [one for one, _ in await bench.entries()] == ["5-3", "6-0"]


async def test_trimming_is_not_approximate(bench: Bench) -> None:
    ids = await filled(bench, 300)  # three nodes of a stream's tree
    assert await trim(bench, 150, ids[149]) == 150
    assert [one for one, _ in await bench.entries()] == ids[150:]


async def test_numbers_beyond_lua_s_own_text_are_kept_exactly(bench: Bench) -> None:
    ids = await filled(bench, 3)
    many = 123_456_789_123_456
    await bench.hset(bench.meta_key, drained=many, retained=0)
    assert await trim(bench, many + 2, ids[0]) == 1
    meta = await bench.meta()
    assert (meta["drained"], meta["retained"]) == (str(many + 2), "1")
    assert (await bench.standing()).undrained == 1


async def test_another_server_is_told_nothing(bench: Bench) -> None:
    ids = await filled(bench, 3)
    before = await bench.state()
    assert await trim(bench, 3, ids[-1], replid="e" * 40) == -1
    assert await bench.state() == before


@pytest.mark.parametrize("removes", [True, False])
async def test_drained_entries_can_be_removed_when_memory_is_full(
    bench: Bench, removes: bool
) -> None:
    # Only trimming makes room again: refused, the partition would stay full for ever.
    ids = await filled(bench, 3)
    await bench.server.run("CONFIG", "SET", "maxmemory", "1")
    try:
        assert await trim(bench, 3, ids[1] if removes else "") == (2 if removes else 0)
    finally:
        await bench.server.run("CONFIG", "SET", "maxmemory", "0")
    assert (await bench.meta())["drained"] == "3"
