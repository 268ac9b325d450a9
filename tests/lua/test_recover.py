"""Recovery believes a server whose history is whole, and begins a new epoch otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from lua.standing import Standing
from lua.types import Fenced, Outcome, RecoveryOutcome
from tests.lua.kit import CAP, DAY_MS, PARTITION, USER, Bench, event, limit

WHOLE, LOST, SUPERSEDED = RecoveryOutcome.WHOLE, RecoveryOutcome.LOST, RecoveryOutcome.SUPERSEDED
FORMER = "a" * 40
STRANGER = "b" * 40


async def used_partition(bench: Bench) -> tuple[str, list[str]]:
    """Three entries; the server's replid and their ids."""
    await bench.load(USER, limit(most=100))
    for units in (1, 2, 3):
        await bench.record(event(units, key=f"k{units}"))
    return (await bench.meta())["replid"], [one for one, _ in await bench.entries()]


def row(replid: str, cursor: str = "0-0", **more: Any) -> dict[str, Any]:
    return {"row_replid": replid, "cursor": cursor} | more


async def test_a_new_partition_is_vouched_for_in_the_rows_epoch(bench: Bench) -> None:
    await bench.server.run("FLUSHALL")
    with pytest.raises(Fenced):
        await bench.record(event())
    found = await bench.vouch(epoch=4, offset=77)
    assert (found.outcome, found.epoch, found.last_id) == (WHOLE, 4, "0-0")
    assert await bench.meta() == {
        "epoch": "4", "replid": found.replid, "vouched_from": "", "offset": "77", "floor": "0-0",
        "bumped_at": "0", "drained": "0", "retained": "0",
    }  # fmt: skip
    assert await bench.entries() == []
    assert (await bench.record(event())).answers[0].outcome is Outcome.MISS


async def test_a_new_partition_whose_first_vouching_was_not_committed_is_still_new_after_a_restart(
    bench: Bench,
) -> None:
    await bench.server.run("FLUSHALL")
    replid = (await bench.vouch()).replid
    await bench.hset(bench.meta_key, replid=FORMER)  # as after a restart: the server's id changed
    found = await bench.vouch()
    assert (found.outcome, found.epoch, found.replid) == (WHOLE, 1, replid)
    assert (await bench.record(event())).answers[0].outcome is Outcome.MISS


async def test_recovering_what_is_in_order_changes_nothing_that_counts(bench: Bench) -> None:
    replid, ids = await used_partition(bench)
    before = await bench.state()
    for cursor in ("0-0", ids[1], ids[2]):
        found = await bench.vouch(**row(replid, cursor, acked=ids[2]))
        assert (found.outcome, found.epoch, found.last_id) == (WHOLE, 1, ids[2])
    after = await bench.state()
    assert {key: after[key] for key in after if key != bench.meta_key} == {
        key: before[key] for key in before if key != bench.meta_key
    }
    meta = await bench.meta()
    assert (meta["drained"], meta["retained"], meta["bumped_at"]) == ("0", "0", "0")
    assert await bench.standing() == Standing(replid, 3)
    assert (await bench.record(event(3, key="k3"))).answers[0].outcome is Outcome.REPLAYED


async def test_a_restarted_server_with_its_history_is_believed_again(bench: Bench) -> None:
    replid, ids = await used_partition(bench)
    await bench.hset(bench.meta_key, replid=FORMER)  # as after a restart: the server's id changed
    with pytest.raises(Fenced):
        await bench.record(event())
    found = await bench.vouch(**row(FORMER, ids[0], acked=ids[2]))
    assert (found.outcome, found.epoch, found.replid) == (WHOLE, 1, replid)
    assert (await bench.meta())["vouched_from"] == FORMER
    assert (await bench.record(event(1))).answers[0].remaining == 93


async def test_the_clocks_offset_is_written_again(bench: Bench) -> None:
    replid, _ = await used_partition(bench)
    await bench.vouch(**row(replid, offset=5 * DAY_MS))
    assert (await bench.meta())["offset"] == str(5 * DAY_MS)


async def test_a_flushed_server_begins_a_new_epoch_after_the_cursor(bench: Bench) -> None:
    replid, ids = await used_partition(bench)
    await bench.server.run("FLUSHALL")
    found = await bench.vouch(**row(replid, ids[1], drained=2, offset=9))
    ms, seq = ids[1].split("-")
    after = f"{ms}-{int(seq) + 1}"
    assert (found.outcome, found.epoch, found.last_id) == (LOST, 2, after)
    [(stream_id, fields)] = await bench.entries()
    assert stream_id == after
    assert {name: raw.decode() for name, raw in fields.items()} | {"at": ""} == {
        "recovery": "2", "cursor": ids[1], "last": "0-0", "at": "",
    }  # fmt: skip
    meta = await bench.meta()
    assert int(meta.pop("bumped_at")) == int(fields["at"])
    assert abs(int(fields["at"]) - await bench.now()) < 60_000
    assert meta == {
        "epoch": "2", "replid": found.replid, "vouched_from": replid, "floor": ids[1],
        "offset": "9", "drained": "2", "retained": "0",
    }  # fmt: skip
    assert (await bench.standing()).undrained == 1  # the recovery itself


async def test_no_quota_of_the_old_epoch_is_used_and_unknown_keys_are_looked_up(
    bench: Bench,
) -> None:
    replid, ids = await used_partition(bench)
    await bench.server.run("DEL", bench.meta_key)
    assert (await bench.vouch(**row(replid, ids[2]))).outcome is LOST
    assert (await bench.record(event(1))).answers[0].outcome is Outcome.MISS
    await bench.load(USER, limit(most=100), cursor=ids[2], through=ids[2])
    recorded = await bench.record(event(1, key="new"), event(1))
    assert [one.outcome for one in recorded.answers] == [Outcome.LOOK_UP, Outcome.RECORDED]


@pytest.mark.parametrize("ahead", ["cursor", "acked"])
async def test_a_stream_that_ends_too_early_is_a_loss(bench: Bench, ahead: str) -> None:
    replid, ids = await used_partition(bench)
    await bench.hset(bench.meta_key, replid=FORMER)
    ms, seq = ids[2].split("-")
    beyond = f"{ms}-{int(seq) + 1}"
    said = row(FORMER, ids[2], acked=ids[2])
    assert (await bench.vouch(**said)).outcome is WHOLE
    await bench.hset(bench.meta_key, replid=FORMER, vouched_from="")
    said[ahead] = beyond
    found = await bench.vouch(**said)
    assert (found.outcome, found.epoch) == (LOST, 2)
    [*_, (last, fields)] = await bench.entries()
    assert fields["last"] == ids[2].encode()
    assert tuple(map(int, last.split("-"))) > tuple(map(int, ids[2].split("-")))
    if ahead == "cursor":
        assert last == f"{ms}-{int(seq) + 2}"
    assert found.replid == replid


async def test_what_survived_beyond_the_cursor_stays_in_the_stream_before_the_recovery(
    bench: Bench,
) -> None:
    replid, ids = await used_partition(bench)
    await bench.server.run("DEL", bench.meta_key)
    assert (await bench.vouch(**row(replid, ids[0], drained=1))).outcome is LOST
    assert [one for one, _ in await bench.entries()][:3] == ids
    tail = await bench.scripts.read(PARTITION, after=ids[0], count=10)
    assert [set(fields) >= {"recovery"} for _, fields in tail.entries] == [False, False, True]
    assert (await bench.meta())["floor"] == ids[0]


@pytest.mark.parametrize("drained", [0, 1, 3])
async def test_after_a_loss_exactly_the_undrained_entries_count_against_the_cap(
    bench: Bench, drained: int
) -> None:
    # Entries that were drained but not trimmed yet must not fill the cap for ever.
    replid, ids = await used_partition(bench)
    cursor = "0-0" if drained == 0 else ids[drained - 1]
    await bench.server.run("DEL", bench.meta_key)
    assert (await bench.vouch(**row(replid, cursor, drained=drained))).outcome is LOST
    undrained = len((await bench.scripts.read(PARTITION, after=cursor, count=CAP)).entries)
    assert undrained == 3 - drained + 1
    meta = await bench.meta()
    assert (meta["drained"], meta["retained"]) == (str(drained), str(drained))
    assert await bench.standing() == Standing(replid, undrained)
    await bench.load(USER, limit(most=None), cursor=cursor, through=cursor)
    recorded = await bench.record(*(event() for _ in range(7)), cap=6)
    room = 6 - undrained
    assert [one.outcome.name for one in recorded.answers] == (
        ["RECORDED"] * room + ["FULL"] * (7 - room)
    )


@pytest.mark.parametrize("trimmed", [0, 1, 2])
async def test_after_a_loss_trimming_goes_on_from_what_the_ledger_has(
    bench: Bench, trimmed: int
) -> None:
    # Two drained, the third not; the report of the drain may have been lost with meta.
    replid, ids = await used_partition(bench)
    through = ids[trimmed - 1] if trimmed else ""
    await bench.scripts.trim(PARTITION, replid=replid, drained=2, through=through)
    await bench.server.run("DEL", bench.meta_key)
    assert (await bench.vouch(**row(replid, ids[1], drained=2))).outcome is LOST
    assert (await bench.standing()).undrained == 2  # and the recovery
    last = (await bench.entries())[-1][0]
    said = [(4, ""), (4, ids[2]), (4, last)]
    left = [4 - trimmed, 1, 0]
    for (drained, upto), retained in zip(said, left, strict=True):
        await bench.scripts.trim(PARTITION, replid=replid, drained=drained, through=upto)
        assert len(await bench.entries()) == retained
        assert (await bench.meta())["retained"] == str(retained)
        assert (await bench.standing()).undrained == 0


async def test_recovering_a_whole_history_leaves_what_was_drained_and_retained(
    bench: Bench,
) -> None:
    replid, ids = await used_partition(bench)
    await bench.scripts.trim(PARTITION, replid=replid, drained=2, through=ids[0])
    await bench.hset(bench.meta_key, replid=FORMER)
    assert (await bench.vouch(**row(FORMER, ids[1], drained=2))).outcome is WHOLE
    meta = await bench.meta()
    assert (meta["drained"], meta["retained"], meta["floor"]) == ("2", "1", ids[0])
    assert (await bench.standing()).undrained == 1


async def test_a_server_of_another_history_is_superseded_and_left_alone(bench: Bench) -> None:
    _, ids = await used_partition(bench)
    for meta_replid, row_replid in ((STRANGER, FORMER), (STRANGER, "")):
        await bench.hset(bench.meta_key, replid=meta_replid)
        before = await bench.state()
        found = await bench.vouch(**row(row_replid, ids[0], epoch=3))
        assert (found.outcome, found.epoch) == (SUPERSEDED, 3)
        assert await bench.state() == before
        with pytest.raises(Fenced):
            await bench.record(event())


async def test_a_server_in_use_by_another_ledger_is_superseded(bench: Bench) -> None:
    await used_partition(bench)
    before = await bench.state()
    assert (await bench.vouch(**row(STRANGER))).outcome is SUPERSEDED
    assert await bench.state() == before


@pytest.mark.parametrize("lost", [True, False])
async def test_a_recovery_whose_commit_failed_is_taken_up_again(bench: Bench, lost: bool) -> None:
    replid, ids = await used_partition(bench)
    await bench.hset(bench.meta_key, replid=FORMER)
    said = row(FORMER, ids[1], drained=2, acked="99999999999999-0" if lost else ids[2])
    first = await bench.vouch(**said)
    assert first.outcome is (LOST if lost else WHOLE)
    entries = await bench.entries()
    second = await bench.vouch(**(said | {"acked": "0-0"}))  # the row still names the former
    assert (second.outcome, second.epoch, second.replid) == (WHOLE, first.epoch, replid)
    assert await bench.entries() == entries
    third = await bench.vouch(**(said | {"row_replid": replid, "acked": "0-0"}))
    assert (third.outcome, third.epoch) == (WHOLE, first.epoch)


@pytest.mark.parametrize("lost", [True, False])
async def test_a_recovery_whose_commit_failed_is_taken_up_after_another_restart(
    bench: Bench, lost: bool
) -> None:
    """Redis was killed twice in a moment: the answer to the first recovery never came, and the row
    still names the server before both."""
    replid, ids = await used_partition(bench)
    await bench.hset(bench.meta_key, replid=FORMER)
    said = row(FORMER, ids[1], drained=2, acked="99999999999999-0" if lost else ids[2])
    first = await bench.vouch(**said)
    await bench.hset(bench.meta_key, replid=STRANGER)  # vouched for in between, and gone
    for _ in range(2):  # whose own commit may fail again
        again = await bench.vouch(**(said | {"acked": "0-0"}))
        assert (again.outcome, again.epoch, again.replid) == (WHOLE, first.epoch, replid)
        await bench.hset(bench.meta_key, replid=STRANGER)


@pytest.mark.parametrize(
    ("row_epoch", "meta_epoch", "whole", "lost"), [(1, 5, 5, 6), (5, 1, 5, 6), (4, 4, 4, 5)]
)
async def test_an_epoch_never_decreases(
    bench: Bench, row_epoch: int, meta_epoch: int, whole: int, lost: int
) -> None:
    replid, ids = await used_partition(bench)
    await bench.hset(bench.meta_key, epoch=meta_epoch)
    said = row(replid, ids[2], epoch=row_epoch)
    assert (await bench.vouch(**said)).epoch == whole
    await bench.hset(bench.meta_key, epoch=meta_epoch)
    found = await bench.vouch(**(said | {"acked": "99999999999999-0"}))
    assert (found.outcome, found.epoch, await bench.epoch()) == (LOST, lost, lost)


@pytest.mark.parametrize(
    "known",
    [{"row_replid": FORMER}, {"cursor": "5-0"}, {"cursor": "5-0", "row_replid": FORMER}],
)
async def test_an_empty_server_is_new_only_to_a_ledger_that_knows_of_none(
    bench: Bench, known: dict[str, str]
) -> None:
    await bench.server.run("FLUSHALL")
    assert (await bench.vouch(**known)).outcome is LOST


@pytest.mark.parametrize("replid", [FORMER, STRANGER])
async def test_what_an_operator_decides_begins_a_new_epoch_whatever_history_it_is(
    bench: Bench, replid: str
) -> None:
    _, ids = await used_partition(bench)
    await bench.hset(bench.meta_key, replid=replid)
    said = row("c" * 40, ids[0], epoch=4, drained=1)
    assert (await bench.vouch(**said)).outcome is SUPERSEDED
    found = await bench.vouch(**said, decided=True)
    assert (found.outcome, found.epoch, await bench.epoch()) == (LOST, 5, 5)
    assert (await bench.record(event(1))).answers[0].outcome is Outcome.MISS
    [*kept, (last, entry)] = await bench.entries()
    assert [one for one, _ in kept] == ids
    assert (last, entry["decided"]) == (found.last_id, b"1")


async def test_a_decision_that_was_not_committed_is_not_taken_up_by_itself(bench: Bench) -> None:
    _, ids = await used_partition(bench)
    await bench.hset(bench.meta_key, replid=STRANGER)
    said = row(FORMER, ids[0])
    decided = await bench.vouch(**said, decided=True)
    assert (await bench.vouch(**said)).outcome is SUPERSEDED
    said |= {"row_replid": decided.replid, "epoch": decided.epoch}
    assert (await bench.vouch(**said)).outcome is WHOLE


async def test_a_decision_goes_on_from_its_cursor_and_hides_no_gap(bench: Bench) -> None:
    replid, ids = await used_partition(bench)
    await bench.scripts.trim(PARTITION, replid=replid, drained=2, through=ids[1])
    await bench.vouch(**row(replid, ids[0], drained=1), decided=True)
    assert (await bench.meta())["floor"] == ids[1]
    await bench.vouch(**row(replid, ids[1], drained=2), decided=True)
    meta = await bench.meta()
    assert (meta["floor"], meta["drained"], meta["retained"]) == (ids[1], "2", "0")


async def test_a_stream_without_meta_is_not_a_new_partition(bench: Bench) -> None:
    await used_partition(bench)
    await bench.server.run("DEL", bench.meta_key)
    assert (await bench.vouch()).outcome is LOST


async def test_writing_goes_on_after_a_recovery_entry_in_the_future(bench: Bench) -> None:
    replid, _ = await used_partition(bench)
    await bench.server.run("FLUSHALL")
    cursor = f"{await bench.now() + DAY_MS}-0"
    assert (await bench.vouch(**row(replid, cursor))).outcome is LOST
    await bench.load(USER, limit(), cursor=cursor, through=cursor)
    recorded = await bench.record(event())
    assert recorded.answers[0].outcome is Outcome.RECORDED
    assert recorded.last_ids[PARTITION] > cursor


async def test_a_restarted_server_whose_memory_is_full_is_believed_again(bench: Bench) -> None:
    # Fenced it cannot be read, so not drained, so not trimmed: it would stay full for ever.
    replid, ids = await used_partition(bench)
    await bench.hset(bench.meta_key, replid=FORMER)
    await bench.server.run("CONFIG", "SET", "maxmemory", "1")
    try:
        found = await bench.scripts.recover(
            PARTITION, epoch=1, drained=0, offset=0, **row(FORMER, ids[0], acked=ids[2])
        )
    finally:
        await bench.server.run("CONFIG", "SET", "maxmemory", "0")
    assert (found.outcome, found.replid) == (WHOLE, replid)


async def test_a_loss_that_every_gateway_reports_is_one_loss(bench: Bench) -> None:
    # Each comes with the highest id it answered for, one after the other.
    replid, ids = await used_partition(bench)
    await bench.server.run("FLUSHALL")
    first = await bench.vouch(**row(replid, ids[0], drained=1, acked=ids[2]))
    assert (first.outcome, first.epoch) == (LOST, 2)
    await bench.load(USER, limit(most=100), cursor=ids[0], through=ids[0])
    again = await bench.vouch(**row(first.replid, ids[0], epoch=2, drained=1, acked=ids[2]))
    assert (again.outcome, again.epoch) == (WHOLE, 2)
    assert len(await bench.entries()) == 1


async def test_what_was_answered_and_is_gone_is_missed_though_others_have_recorded_since(
    bench: Bench,
) -> None:
    replid, ids = await used_partition(bench)
    await bench.server.run("XDEL", bench.stream_key, ids[1])
    assert (await bench.vouch(**row(replid, acked=ids[0]))).outcome is WHOLE
    assert (await bench.vouch(**row(replid, acked=ids[2]))).outcome is WHOLE
    assert (await bench.vouch(**row(replid, acked=ids[1]))).outcome is LOST
    for one in ids:
        assert (await bench.vouch(**row(replid, epoch=2, acked=one))).outcome is WHOLE, "but once"


async def test_what_was_answered_and_trimmed_is_no_loss(bench: Bench) -> None:
    replid, ids = await used_partition(bench)
    await bench.scripts.trim(PARTITION, replid=replid, drained=2, through=ids[1])
    for one in ids:
        assert (await bench.vouch(**row(replid, ids[1], acked=one))).outcome is WHOLE
