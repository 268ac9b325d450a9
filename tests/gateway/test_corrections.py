"""Finance corrects recorded usage: exact, once, never below nothing, and the quota with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from gateway.app import DESK_CONNECTIONS
from ledger import clock, store, undrained
from ledger.corrections import Corrections, Refused, Wanted
from ledger.domain.ids import dev_uuid
from lua import keys
from lua.keys import Account, partition_of
from lua.scripts import Scripts
from tests.conftest import Service
from tests.flow.invariants import check
from tests.ledger.letters import REFUSED, accept, decider, refuse

USER = "ada"


class Desk:
    """Finance at work on a user's usage."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.sql = service.sql
        self.is_checked = (
            True  # but where an entry is set aside, which the shared check does not expect
        )

    async def use(self, quantity: Any = 10, usage_type: str = "api_calls", **said: Any) -> str:
        """A record in the ledger; its usage id."""
        body = {"user_id": USER, "usage_type": usage_type, "quantity": quantity, **said}
        status, answer, _ = await self.service.post("/usage", body)
        assert status == 201, answer
        await self.service.drained()
        return str(answer["usage_id"])

    async def correct(
        self, usage_id: str, quantity: Any, key: str | None = None, **said: Any
    ) -> tuple[int, Any, dict[str, str]]:
        body = {"quantity": quantity, "reason": "counted twice", **said}
        headers = self.service.token(said.pop("role", "finance"))
        body.pop("role", None)
        headers["Idempotency-Key"] = key or str(uuid4())
        return await self.service.post(f"/usage/{usage_id}/corrections", body, headers=headers)

    async def used(self, **query: str) -> list[Any]:
        _, said, _ = await self.service.get(f"/quota/{USER}", params=query)
        return [one["used"] for one in said["quotas"] if one["usage_type"] == "api_calls"]

    async def rows(self) -> list[Any]:
        rows = await self.sql.fetch("SELECT quantity::FLOAT8 FROM usage_records ORDER BY position")
        return [row["quantity"] for row in rows]

    async def resent(self) -> None:
        """What the ledger does of what is owed, as if it were due."""
        await self.sql.execute("UPDATE usage_corrections SET next_attempt_at = NOW()")
        await Corrections(self.service.scripts, 1000).run_once(self.sql, clock.now())


@pytest.fixture
async def desk(service: Service) -> AsyncIterator[Desk]:
    made = Desk(service)
    yield made
    await service.drained()
    if made.is_checked:
        await check(service)


async def test_a_correction_is_a_record_of_its_own_and_gives_quota_back(desk: Desk) -> None:
    original = await desk.use(10)
    [before] = await desk.sql.fetch("SELECT * FROM usage_records")
    status, said, _ = await desk.correct(original, -4)
    assert status == 201
    assert (said["correction_of"], said["quantity"], said["net_quantity"]) == (original, -4, 6)
    assert (said["quota_remaining"], said["quota_exceeded"]) == (9994, False)
    assert await desk.used() == [6]
    await desk.service.drained()
    finance = desk.service.token("finance")
    _, listed, _ = await desk.service.get("/usage?user_id=ada", headers=finance)
    newest, oldest = listed["data"]
    assert (newest["usage_id"], newest["reversal_of"]) == (said["usage_id"], original)
    assert (newest["quantity"], newest["used_after"]) == (-4, 6)
    assert newest["recorded_at"] == said["recorded_at"]
    for name in ("billing_period", "occurred_at", "plan_tier", "plan_version", "subscription_id"):
        assert newest[name] == oldest[name]
    unchanged = await desk.sql.fetchrow("SELECT * FROM usage_records WHERE usage_id = $1", original)
    assert unchanged == before
    assert await desk.used() == [6]


async def test_more_can_be_added_past_every_limit(desk: Desk) -> None:
    original = await desk.use(9_999)
    status, said, _ = await desk.correct(original, 5_000)
    assert (status, said["net_quantity"]) == (201, 14_999)
    assert (said["quota_remaining"], said["quota_exceeded"]) == (0, True)


async def test_decimals_are_exact(desk: Desk) -> None:
    original = await desk.use(15.5, "conversation_minutes")
    status, said, _ = await desk.correct(original, -15.49)
    assert (status, said["quantity"], said["net_quantity"]) == (201, -15.49, 0.01)
    assert (await desk.correct(original, -0.001))[0] == 400


async def test_the_pool_of_an_organization_is_corrected_with_its_member(desk: Desk) -> None:
    original = await desk.use(10, organization_id="acme")
    await desk.use(7)
    assert (await desk.correct(original, -3))[0] == 201
    assert await desk.used(organization_id="acme") == [7]
    assert await desk.used() == [7]
    await desk.service.drained()
    rows = await desk.sql.fetch(
        "SELECT quantity::INTEGER AS quantity FROM usage_totals ORDER BY subject"
    )
    assert [row["quantity"] for row in rows] == [7, 7, 7]


@pytest.mark.parametrize("drained", [False, True])
async def test_a_repeat_is_answered_the_same_and_corrects_once(desk: Desk, drained: bool) -> None:
    original = await desk.use(10)
    first = await desk.correct(original, -4, "key")
    if drained:
        await desk.service.drained()
        await desk.service.redis.run("FLUSHALL")  # no receipt
        await desk.service.drained()
    status, said, headers = await desk.correct(original, -4, "key")
    assert (status, said) == first[:2]
    assert headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first[2]
    assert await desk.used() == [6]
    await desk.service.drained()
    assert await desk.rows() == [10, -4]


async def test_a_key_is_for_one_correction_of_a_user(desk: Desk) -> None:
    original, other = await desk.use(10), await desk.use(10)
    assert (await desk.correct(original, -4, "key"))[0] == 201
    assert (await desk.correct(original, -5, "key"))[0] == 422
    assert (await desk.correct(original, -4, "key", reason="another"))[0] == 422
    assert (await desk.correct(other, -4, "key"))[0] == 422
    assert await desk.used() == [16]


async def test_the_key_of_usage_is_not_that_of_its_correction(desk: Desk) -> None:
    original = await desk.use(10, idempotency_key="key")
    assert (await desk.correct(original, -4, "key"))[0] == 201


async def test_a_key_is_needed_and_may_be_in_the_body(desk: Desk) -> None:
    original = await desk.use(10)
    path, token = f"/usage/{original}/corrections", desk.service.token("finance")
    body = {"quantity": -1, "reason": "test"}
    assert (await desk.service.post(path, body, headers=token))[0] == 400
    body["idempotency_key"] = "key"
    assert (await desk.service.post(path, body, headers=token))[0] == 201


async def test_no_more_is_taken_back_than_is_left(desk: Desk) -> None:
    original = await desk.use(10)
    assert (await desk.correct(original, -6))[0] == 201  # not drained, and counts
    status, said, _ = await desk.correct(original, -5)
    assert (status, said["detail"]) == (409, "only 4 of it is left to take back")
    assert (await desk.correct(original, -4))[0] == 201
    assert (await desk.correct(original, 3))[1]["net_quantity"] == 3
    assert (await desk.correct(original, 2**53 - 1))[0] == 409


async def test_of_many_at_once_none_takes_what_another_took(desk: Desk) -> None:
    original = await desk.use(10)
    answers = await asyncio.gather(*(desk.correct(original, -3) for _ in range(8)))
    assert sorted(status for status, _, _ in answers) == [201] * 3 + [409] * 5
    assert await desk.used() == [1]


async def test_one_key_at_once_is_one_correction(desk: Desk) -> None:
    original, other = await desk.use(10), await desk.use(10)
    at_once = [desk.correct(one, -3, "key") for one in (original, original, other, other)]
    statuses = [status for status, _, _ in await asyncio.gather(*at_once)]
    assert sorted(statuses) == [201, 201, 422, 422]
    assert await desk.used() == [17]


async def test_a_correction_is_not_corrected(desk: Desk) -> None:
    original = await desk.use(10)
    _, said, _ = await desk.correct(original, -1)
    assert (await desk.correct(said["usage_id"], 1))[0] == 409
    await desk.service.drained()
    assert (await desk.correct(said["usage_id"], 1))[0] == 409


async def test_what_is_not_drained_waits_and_what_is_not_there_is_not_found(desk: Desk) -> None:
    for key in ("key", None):
        body = {"user_id": USER, "usage_type": "api_calls", "quantity": 1}
        _, used, _ = await desk.service.post("/usage", body | {"idempotency_key": key})
        status, _, headers = await desk.correct(used["usage_id"], -1)
        assert (status, headers["Retry-After"]) == (409, "1")
        await desk.service.drained()
        assert (await desk.correct(used["usage_id"], -1))[0] == 201
    for unknown in (str(uuid4()), "test-user", "0" * 300):
        assert (await desk.correct(unknown, -1))[0] == 404


@pytest.mark.parametrize(
    ("role", "status"),
    [("finance", 201), ("admin", 201), ("service", 403), ("org_admin", 403), ("user", 403)],
)
async def test_finance_and_admins_correct(desk: Desk, role: Any, status: int) -> None:
    original = await desk.use(10)
    assert (await desk.correct(original, -1, role=role))[0] == status
    nobody = {"Idempotency-Key": "key"}
    path = f"/usage/{original}/corrections"
    assert (await desk.service.post(path, {"quantity": -1, "reason": "x"}, headers=nobody))[
        0
    ] == 401


@pytest.mark.parametrize(
    "body",
    [
        '{"quantity": 0, "reason": "x"}',
        '{"quantity": -0.0, "reason": "x"}',
        '{"quantity": --1, "reason": "x"}',
        '{"quantity": "-1", "reason": "x"}',
        '{"quantity": "--1", "reason": "x"}',
        '{"quantity": -1e999, "reason": "x"}',
        '{"quantity": -9007199254740992, "reason": "x"}',
        '{"quantity": -0.5, "reason": "x"}',
        '{"quantity": null, "reason": "x"}',
        '{"quantity": -1}',
        '{"quantity": -1, "reason": ""}',
        '{"quantity": -1, "reason": "a\\nb"}',
        '{"quantity": -1, "reason": "' + "x" * 201 + '"}',
        '{"quantity": -1, "reason": "x", "user_id": "ada"}',
    ],
)
async def test_bad_input_is_refused_and_nothing_is_kept(desk: Desk, body: str) -> None:
    original = await desk.use(10)
    headers = desk.service.token("finance") | {"Idempotency-Key": "key"}
    headers["Content-Type"] = "application/json"
    path = f"/usage/{original}/corrections"
    status, _, _ = await desk.service.post(path, headers=headers, data=body)
    assert status == 400
    assert await desk.sql.fetchval("SELECT COUNT(*) FROM usage_corrections") == 0


async def test_the_reason_is_in_the_audit_trail_alone(desk: Desk) -> None:
    original = await desk.use(10)
    await desk.correct(original, -4, reason="sent by a load test")
    await desk.service.drained()
    [event] = await desk.sql.fetch(
        "SELECT * FROM audit_events WHERE event_type = 'usage_corrected'"
    )
    details = msgspec.json.decode(event["details"])
    assert event["actor"] == "finance-dev"
    assert details["reason"] == "sent by a load test"
    assert (details["correction_of"], details["quantity"]) == (original, "-4")
    row = await desk.sql.fetchval("SELECT r::TEXT FROM usage_records r WHERE quantity < 0")
    assert "load test" not in row


async def test_a_quota_that_is_not_loaded_is_loaded_with_the_correction(desk: Desk) -> None:
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


def quota_key() -> str:
    who = Account(dev_uuid(USER)).who
    return keys.quota(partition_of(who, 4), who)


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
