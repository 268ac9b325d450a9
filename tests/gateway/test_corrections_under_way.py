"""A correction between its asking and its row: not sent, sent twice, refused, parked, restored."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from gateway.app import DESK_CONNECTIONS
from ledger import clock, store, undrained
from ledger.corrections import Corrections, Refused, Wanted
from lua.scripts import Scripts
from tests.gateway.desk import Desk, quota_key
from tests.ledger.letters import REFUSED, accept, decider, refuse


async def test_a_quota_that_is_not_loaded_is_loaded_with_the_correction(
    desk: Desk,
) -> None:
    original = await desk.use(10)
    for key in await desk.service.redis.run("KEYS", "quota:*"):
        await desk.service.redis.run("DEL", key)
    status, said, _ = await desk.correct(original, -4)
    assert (status, said["quota_remaining"]) == (201, None)
    assert await desk.used() == [6]  # of the entry
    await desk.service.drained()
    assert (
        await desk.sql.fetchval("SELECT used_after FROM usage_records WHERE quantity < 0") is None
    )
    await desk.use(1)
    assert await desk.used() == [7]


async def test_what_never_reached_redis_is_sent_by_the_ledger(desk: Desk) -> None:
    """The gateway died between the two."""
    original = await desk.use(10)
    await desk.correct(original, -4, "key")
    await desk.service.redis.run("FLUSHALL")  # the entry and its receipt are gone as well
    assert (await desk.correct(original, -7))[0] == 409  # it counts all the same
    await desk.resent()
    await desk.service.drained()
    assert await desk.rows() == [10, -4]
    await desk.resent()
    assert await desk.sql.fetchval("SELECT done_at IS NOT NULL FROM usage_corrections")
    assert (await desk.correct(original, -4, "key"))[2]["Idempotent-Replayed"] == "true"


async def test_what_is_sent_twice_is_one_record(desk: Desk) -> None:
    desk.is_checked = False
    original = await desk.use(10)
    await desk.correct(original, -4)
    await desk.resent()  # the receipt says so
    for key in await desk.service.redis.run("KEYS", "receipt:*"):
        await desk.service.redis.run("DEL", key)
    await desk.resent()  # a second entry
    assert await desk.used() == [2]
    await desk.service.drained()
    assert await desk.rows() == [10, -4]
    assert await desk.used() == [6]


async def test_what_redis_refuses_is_not_kept(desk: Desk) -> None:
    original = await desk.use(10)
    quota = quota_key()
    await desk.service.redis.run("HSET", quota, "used:api_calls", 2**53 - 3)
    status, _, _ = await desk.correct(original, 5, "key")
    assert status == 400
    await desk.service.redis.run("HSET", quota, "used:api_calls", 10)
    assert await desk.sql.fetchval("SELECT COUNT(*) FROM usage_corrections") == 0
    events = await desk.sql.fetch(
        "SELECT event_type FROM audit_events WHERE event_type LIKE 'usage_correct%' ORDER BY 1"
    )
    assert [one["event_type"] for one in events] == [
        "usage_corrected",
        "usage_correction_withdrawn",
    ]
    assert (await desk.correct(original, 5, "key"))[0] == 201


async def test_what_was_sent_before_is_not_withdrawn(desk: Desk) -> None:
    """Whoever sent it first may still be heard."""
    original = await desk.use(10)
    await desk.correct(original, -4, "key")
    await desk.service.redis.run("FLUSHALL")
    full = Corrections(desk.service.scripts, 0)  # a stream that takes no entry
    found = await store.corrections.original(desk.sql, UUID(original))
    assert found is not None
    with pytest.raises(Refused) as refused:
        wanted = Wanted(-4, "counted twice", "key", "finance")
        await full.correct(desk.sql, found, wanted, clock.now())
    assert refused.value.is_kept
    assert await desk.sql.fetchval("SELECT COUNT(*) FROM usage_corrections") == 1
    await desk.resent()
    await desk.service.drained()
    assert await desk.rows() == [10, -4]


async def test_a_correction_that_could_not_be_written_counts_until_it_is_discarded(
    desk: Desk,
) -> None:
    desk.is_checked = False
    original = await desk.use(10)
    await refuse(desk.sql)
    assert (await desk.correct(original, REFUSED, "key"))[0] == 201
    await desk.service.drained()
    status, said, _ = await desk.correct(original, REFUSED, "key")
    assert (status, said["detail"][:32]) == (409, "this correction waits for an ope")
    await desk.resent()
    assert await desk.service.drained() == 0
    assert (await desk.correct(original, -20))[1]["net_quantity"] == 3
    letter = await desk.sql.fetchval("SELECT dead_letter_id FROM dead_letters")
    await decider(desk.sql, desk.service.scripts).discard(letter, "wrong")
    assert (await desk.correct(original, 10))[1]["net_quantity"] == 0
    status, said, _ = await desk.correct(original, REFUSED, "key")
    assert (status, said["detail"]) == (409, "an operator discarded this correction")
    await desk.resent()
    assert (
        await desk.sql.fetchval("SELECT COUNT(*) FROM usage_corrections WHERE done_at IS NULL") == 2
    )
    await desk.service.drained()


async def test_usage_that_could_not_be_written_is_not_corrected_yet(desk: Desk) -> None:
    desk.is_checked = False
    await refuse(desk.sql)
    original = await desk.use(REFUSED)
    status, said, _ = await desk.correct(original, -1)
    assert (status, "waits for an operator" in said["detail"]) == (409, True)
    await accept(desk.sql)
    letter = await desk.sql.fetchval("SELECT dead_letter_id FROM dead_letters")
    await decider(desk.sql, desk.service.scripts).retry(letter)
    assert (await desk.correct(original, -1))[0] == 201


async def test_a_restored_database_knows_a_correction_by_its_row(desk: Desk) -> None:
    """What was asked for after the backup is gone; its entry is drained again."""
    original = await desk.use(10)
    first = await desk.correct(original, -4, "key")
    await desk.service.drained()
    await desk.sql.execute("DELETE FROM usage_corrections")
    assert (await desk.correct(original, -7))[0] == 409
    assert (await desk.correct(original, -5, "key"))[0] == 422
    assert (await desk.correct(original, -4, "key"))[:2] == first[:2]
    assert await desk.used() == [6]


async def test_what_is_withdrawn_while_it_is_repeated_is_kept_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a record would be of a correction that nobody asked for, and nothing sent it again."""
    original = await desk.use(10)
    await desk.correct(original, -4, "key")
    await desk.service.redis.run("FLUSHALL")
    claim = store.corrections.claim

    async def overtaken(db: Any, usage_id: UUID, for_s: int) -> bool:
        await store.corrections.withdraw(db, usage_id)  # by whom Redis refused it
        return await claim(db, usage_id, for_s)

    monkeypatch.setattr(store.corrections, "claim", overtaken)
    assert (await desk.correct(original, -4, "key"))[0] == 201
    assert await desk.sql.fetchval("SELECT COUNT(*) FROM usage_corrections") == 1
    assert (await desk.correct(original, -7))[0] == 409


async def test_those_who_ask_for_what_is_not_there_leave_connections_to_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would read all that is not drained, and each held a connection while it did."""
    monkeypatch.setattr(undrained, "TURN_S", 0.2)
    read, looks, seen = Scripts.read, 0, asyncio.Event()

    async def slow(scripts: Scripts, partition: int, *, after: str, count: int) -> Any:
        nonlocal looks
        if count == undrained.PAGE:
            looks += 1
            await seen.wait()
        return await read(scripts, partition, after=after, count=count)

    monkeypatch.setattr(Scripts, "read", slow)
    asked = [
        asyncio.ensure_future(desk.correct(str(uuid4()), -1)) for _ in range(2 * DESK_CONNECTIONS)
    ]
    try:
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        status, said, _ = await desk.service.post(
            "/usage", {"user_id": "cold", "usage_type": "api_calls", "quantity": 1}
        )
    finally:
        at_once = looks
        seen.set()
    assert (status, at_once) == (201, 1), said
    answers = [await one for one in asked]
    assert {status for status, _, _ in answers} == {404, 409}
    assert all(headers["Retry-After"] == "1" for status, _, headers in answers if status == 409)


async def test_a_look_for_usage_vouches_for_a_server_that_restarted(desk: Desk) -> None:
    original = await desk.use(10)
    await desk.service.redis.run("FLUSHALL")
    assert (await desk.correct(str(uuid4()), -1))[0] == 404
    assert (await desk.correct(original, -4))[0] == 201
