"""What is left over of a period is there in the next one: exactly, once, and not for longer."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from ledger import cycle, db, store
from ledger.domain.ids import dev_uuid
from ledger.reconcile.rows import check as check_rows
from ledger.rollover import reload_quotas
from ledger.wishes import Wish
from tests.invoices.conftest import GRACE, TYPE, Months
from tests.ledger.plans import add_plan, allows

SECOND = timedelta(seconds=1)


def rolls(limit: str, most: str, scope: str = "user", enforcement: str = "hard") -> dict[str, Any]:
    return allows(TYPE, limit, enforcement, scope=scope) | {"rollover": {"max": most}}


@pytest.fixture
async def rolling(months: Months) -> Months:
    await add_plan(months.sql, "rolling", rolls("100", "30"))
    return months


async def quota(
    months: Months, user: str, scope: str = "user", **said: str
) -> tuple[int, int, int]:
    """Limit, how much of it was left over, and what is used."""
    query = "".join(f"?organization_id={one}" for one in said.values())
    status, answer, _ = await months.service.get(f"/quota/{user}{query}")
    assert status == 200, answer
    [one] = [one for one in answer["quotas"] if (one["usage_type"], one["scope"]) == (TYPE, scope)]
    return one["limit"], one["rollover"], one["used"]


async def answers(months: Months, user: str, quantity: int, **said: str) -> int:
    body = {"user_id": user, "usage_type": TYPE, "quantity": quantity, **said}
    status, _, _ = await months.service.post("/usage", body)
    return status


async def test_over_several_months_what_is_left_is_capped_used_first_and_expires(
    rolling: Months,
) -> None:
    await rolling.create("ada", "rolling")
    assert await quota(rolling, "ada") == (100, 0, 0)
    # (used, what then is left over): 20 of 100; of 120 used 20 were granted, and 30 at most; all.
    for used, left in [(80, 20), (45, 30), (130, 0), (0, 30), (0, 30), (101, 29)]:
        if used:
            await rolling.use("ada", used)
        await rolling.end_of_period("ada")
        assert await quota(rolling, "ada") == (100 + left, left, 0)
    assert await answers(rolling, "ada", 130) == 429
    assert await answers(rolling, "ada", 129) == 201
    granted = await rolling.sql.fetch("SELECT quantity::INT FROM grants ORDER BY quota_period")
    assert [one["quantity"] for one in granted] == [20, 30, 0, 30, 30, 29]
    told = await rolling.sql.fetchval(
        "SELECT COUNT(*) FROM audit_events WHERE event_type = 'quota_granted'"
    )
    assert told == 5
    await rolling.settle()
    for partition in range(rolling.service.settings.partitions):
        report = await check_rows(rolling.sql, partition, 0, 2**60)
        assert not report.findings


async def test_a_limit_that_was_passed_by_more_than_was_granted_is_found(
    rolling: Months,
) -> None:
    await rolling.create("ada", "rolling")
    await rolling.use("ada", 80)
    await rolling.end_of_period("ada")
    await rolling.use("ada", 120)
    await rolling.settle()
    async with rolling.sql.transaction():
        await rolling.sql.execute("UPDATE grants SET quantity = 19")
        found = [
            one.invariant
            for partition in range(rolling.service.settings.partitions)
            for one in (await check_rows(rolling.sql, partition, 0, 2**60)).findings
        ]
        await rolling.sql.execute("UPDATE grants SET quantity = 20")
    assert found == ["I4"]


async def test_right_before_and_after_the_end_each_unit_is_in_one_period(rolling: Months) -> None:
    made = await rolling.create("ada", "rolling")
    end = made.subscription.period_end
    assert end is not None
    await rolling.move(end - 5 * SECOND)
    await rolling.use("ada", 71)  # not drained when the next period begins
    await rolling.move(end)
    await rolling.use("ada", 100)
    # What is left over is known only when the close is drained: not a unit more until then.
    assert await quota(rolling, "ada") == (100, 0, 100)
    assert await answers(rolling, "ada", 1) == 429
    await rolling.settle()
    assert await quota(rolling, "ada") == (129, 29, 100)
    assert await answers(rolling, "ada", 30) == 429
    assert await answers(rolling, "ada", 29) == 201


async def test_a_close_that_is_not_drained_grants_nothing_to_whoever_loads(
    rolling: Months,
) -> None:
    made = await rolling.create("ada", "rolling")
    end = made.subscription.period_end
    assert end is not None
    await rolling.move(end - 5 * SECOND)
    await rolling.use("ada", 80)
    await rolling.move(end)
    await rolling.cycle.run_once(rolling.now)  # closes; nobody drains
    assert await quota(rolling, "ada") == (100, 0, 0)
    assert not await rolling.sql.fetch("SELECT FROM grants")
    await rolling.service.drained()
    assert await quota(rolling, "ada") == (100, 0, 0)  # as it was loaded
    await rolling.cycle.run_once(rolling.now)
    assert await quota(rolling, "ada") == (120, 20, 0)


async def test_many_that_load_at_once_are_granted_once(rolling: Months) -> None:
    await rolling.create("ada", "rolling")
    await rolling.use("ada", 90)
    await rolling.end_of_period("ada")
    said = await asyncio.gather(*(answers(rolling, "ada", 10) for _ in range(20)))
    assert sorted(said) == [201] * 11 + [429] * 9
    assert await rolling.sql.fetchval("SELECT COUNT(*) FROM grants") == 1
    assert await rolling.sql.fetchval(
        "SELECT COUNT(*) FROM audit_events WHERE event_type = 'quota_granted'"
    ) == 1  # fmt: skip


async def test_an_organizations_pool_and_each_of_its_members_have_their_own(
    months: Months,
) -> None:
    await add_plan(months.sql, "rolling", rolls("100", "30"), rolls("1000", "500", "organization"))
    await months.create("boss", "rolling", organization="acme")
    await months.use("ada", 90, organization_id="acme")
    await months.use("ben", 75, organization_id="acme")
    await months.end_of_period("boss", "acme")
    said = {"organization_id": "acme"}
    assert await quota(months, "ada", **said) == (110, 10, 0)
    assert await quota(months, "ben", **said) == (125, 25, 0)
    assert await quota(months, "cyd", **said) == (130, 30, 0)  # has used nothing
    assert await quota(months, "ada", "organization", **said) == (1500, 500, 0)
    await months.use("ada", 110, organization_id="acme")
    await months.end_of_period("boss", "acme")
    assert await quota(months, "ada", **said) == (100, 0, 0)


async def test_a_period_that_was_used_without_being_granted_anything_is_made_up_for(
    rolling: Months,
) -> None:
    made = await rolling.create("ada", "rolling")
    end = made.subscription.period_end
    assert end is not None
    await rolling.move(end)
    await rolling.use("ada", 90)  # before the close of the first: nothing granted, and never loaded
    await rolling.settle()
    assert not await rolling.sql.fetch("SELECT FROM grants")
    await rolling.end_of_period("ada")
    # 30 were left over of the first: 90 were 30 of these and 60 of the second's own.
    assert await quota(rolling, "ada") == (130, 30, 0)
    assert await rolling.sql.fetchval("SELECT COUNT(*) FROM grants") == 2


async def test_what_is_left_over_of_a_plan_stays_when_the_plan_changes(rolling: Months) -> None:
    await add_plan(rolling.sql, "plain", allows(TYPE, "90"))
    await rolling.create("ada", "rolling")
    await rolling.use("ada", 80)
    await rolling.act("ada", Wish("change", "plain", when="period_end"))
    await rolling.end_of_period("ada")
    assert await quota(rolling, "ada") == (110, 20, 0)
    await rolling.act("ada", Wish("change", "rolling", when="now"))
    assert await quota(rolling, "ada") == (120, 20, 0)
    await rolling.act("ada", Wish("change", "plain", when="now"))
    await rolling.end_of_period("ada")
    assert await quota(rolling, "ada") == (90, 0, 0)  # of a plan that hands nothing on


async def test_within_a_period_the_plan_at_its_end_decides(rolling: Months) -> None:
    await add_plan(rolling.sql, "larger", rolls("1000", "300"))
    await rolling.create("ada", "rolling")
    await rolling.use("ada", 100)
    await rolling.act("ada", Wish("change", "larger", when="now"))
    await rolling.use("ada", 650)
    await rolling.end_of_period("ada")
    assert await quota(rolling, "ada") == (1250, 250, 0)


@pytest.mark.parametrize("how", ["trial", "paused", "ended", "without"])
async def test_nothing_is_left_over_of_what_was_not_paid_for(rolling: Months, how: str) -> None:
    if how == "without":
        await rolling.create("ada", "basic")
    else:
        trial = {"trial_days": 14} if how == "trial" else {}
        await rolling.create("ada", "rolling", **trial)
    if how == "paused":
        await rolling.act("ada", Wish("pause"))
        await rolling.end_of_period("ada")
        await rolling.act("ada", Wish("resume"))
    elif how == "ended":
        await rolling.act("ada", Wish("cancel"))
        end = await rolling.end_of_period("ada")
        made = await rolling.act("ada", Wish("reactivate"))
        assert made.subscription.period_start == end
    else:
        await rolling.end_of_period("ada")
    limit, left, _ = await quota(rolling, "ada")
    assert (limit, left) == (10_000 if how == "without" else 100, 0)


async def test_a_soft_limit_with_what_is_left_over_is_exceeded_later(months: Months) -> None:
    await add_plan(months.sql, "rolling", rolls("100", "30", enforcement="soft"))
    await months.create("ada", "rolling")
    await months.end_of_period("ada")
    body = {"user_id": "ada", "usage_type": TYPE, "quantity": 130}
    assert (await months.service.post("/usage", body))[1]["quota_exceeded"] is False
    assert (await months.service.post("/usage", body | {"quantity": 1}))[1]["quota_exceeded"]


async def test_redis_that_forgot_everything_is_told_the_same_again(rolling: Months) -> None:
    await rolling.create("ada", "rolling")
    await rolling.use("ada", 80)
    await rolling.end_of_period("ada")
    await rolling.use("ada", 110)
    await rolling.settle()
    await rolling.service.redis.run("FLUSHALL")
    await rolling.move(rolling.now)
    assert await quota(rolling, "ada") == (120, 20, 110)
    assert await answers(rolling, "ada", 11) == 429


async def test_a_change_and_its_periods_end_are_noted_once(rolling: Months) -> None:
    """The terms get a new version for it, and nothing else of the subscription changes."""
    await rolling.create("ada", "rolling")
    await rolling.end_of_period("ada")
    stored = await store.subscriptions.newest(rolling.sql, "user", dev_uuid("ada"), None)
    assert stored is not None
    assert not await rolling.sql.fetch("SELECT FROM billing_periods WHERE rolls_over")
    assert not await rolling.sql.fetch("SELECT FROM outbox WHERE done_at IS NULL")
    assert not await rolling.cycle.run_once(rolling.now + GRACE)
    again = await store.subscriptions.newest(rolling.sql, "user", dev_uuid("ada"), None)
    assert again == stored


async def test_a_quota_that_is_granted_something_does_not_wait_for_who_holds_the_subscription(
    rolling: Months, database_url: str
) -> None:
    """An invoice that is being made, or a change."""
    made = await rolling.create("ada", "rolling")
    await rolling.end_of_period("ada")
    other = await db.connect(database_url)
    try:
        async with other.transaction():
            one = made.subscription.subscription_id
            assert await store.subscriptions.hold_by_id(other, one) is not None
            assert await quota(rolling, "ada") == (130, 30, 0)
    finally:
        await other.close()


async def test_one_that_cannot_be_rolled_over_holds_up_nobody_and_is_told_of_until_it_is(
    rolling: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycle, "BATCH", 1)
    made = await rolling.create("ada", "rolling")
    await rolling.advance(rolling.now + SECOND)
    await rolling.create("ben", "rolling")
    broken = made.subscription.subscription_id

    async def fails(db: Any, period_id: UUID, subscription_id: UUID) -> int | None:
        if subscription_id == broken:
            raise ZeroDivisionError
        return await reload_quotas(db, period_id, subscription_id)

    monkeypatch.setattr(cycle, "reload_quotas", fails)
    end = made.subscription.period_end
    assert end is not None
    await rolling.advance(end)
    for _ in range(3):  # where the machine is slow, hers is tried again between
        await rolling.cycle.run_once(end)
    left = "SELECT subscription_id FROM billing_periods WHERE rolls_over"
    assert [one[0] for one in await rolling.sql.fetch(left)] == [broken]
    assert (await store.billing_state.failures(rolling.sql)).subscriptions == 1
    monkeypatch.setattr(cycle, "reload_quotas", reload_quotas)
    await rolling.sql.execute("UPDATE billing_failures SET retry_at = NOW()")
    await rolling.settle()
    assert not await rolling.sql.fetch(left)
    assert (await store.billing_state.failures(rolling.sql)).subscriptions == 0
