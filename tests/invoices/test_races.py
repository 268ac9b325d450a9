"""What happens in the moments around a period's end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from ledger import db, store
from ledger.subscriptions import Subscriptions, carry_out
from ledger.wishes import Wish
from tests.invoices.conftest import GRACE, TYPE, Months, Pool

CENT_EACH = {"usage_type": TYPE, "model": "per_unit", "unit_amount": "0.01"}


@pytest.mark.parametrize("after_s", [0, 60])
async def test_usage_of_the_period_that_runs_waits_for_its_own_invoice(
    months: Months, after_s: int
) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    made = await months.create("ada", "pro")
    await months.use("ada", 100)
    assert made.subscription.period_end is not None
    await months.advance(made.subscription.period_end + timedelta(seconds=after_s))
    await months.use("ada", 30)  # while the invoice of the period before waits for its grace
    await months.advance(made.subscription.period_end + GRACE)
    second = (await months.invoices())[1]
    assert await months.lines(second) == [("base_fee", "49.00"), ("usage", "1.00")]
    await months.end_of_period("ada")
    third = (await months.invoices())[2]
    assert await months.lines(third) == [("base_fee", "49.00"), ("usage", "0.30")]


async def test_a_beginning_is_invoiced_without_what_was_used_since(months: Months) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    address = months.address("ada", None)
    await months.subscriptions.create(address, "pro", actor="test", now=months.now)
    await months.use("ada", 100)  # before any ledger has looked
    await months.settle()
    [first] = await months.invoices()
    assert await months.lines(first) == [("base_fee", "49.00")]
    await months.end_of_period("ada")
    second = (await months.invoices())[1]
    assert await months.lines(second) == [("base_fee", "49.00"), ("usage", "1.00")]


async def test_an_upgrade_that_waited_while_the_period_ended_is_of_the_next(
    months: Months,
) -> None:
    await months.plan("small", "31.00")
    await months.plan("large", "310.00")
    made = await months.create("ada", "small")
    end = made.subscription.period_end
    assert end is not None
    await months.advance(end)
    months.now = end - timedelta(milliseconds=5)  # when the upgrade was asked for
    upgraded = await months.act("ada", Wish("change", "large"))
    assert [(one.kind, one.amount) for one in upgraded.lines] == [
        ("credit", Decimal(-31)), ("proration", Decimal(310))
    ]  # fmt: skip
    assert upgraded.subscription.updated_at == end


async def test_a_cancellation_that_waited_while_the_period_ended_ends_the_next(
    months: Months,
) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    made = await months.create("ada", "pro")
    end = made.subscription.period_end
    assert end is not None
    await months.advance(end)
    months.now = end - timedelta(milliseconds=5)
    ended = await months.act("ada", Wish("cancel", when="now"))
    assert (ended.subscription.status, ended.subscription.cancel_at) == ("canceled", end)


async def test_one_that_cannot_be_invoiced_holds_up_nobody_else(months: Months) -> None:
    await months.plan("vast", "1.00", CENT_EACH | {"unit_amount": "99999999999.00"})
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "vast")
    made = await months.create("ben", "pro")
    await months.use("ada", 9_000_000_000_000)  # more than an invoice has room for
    assert made.subscription.period_end is not None
    await months.advance(made.subscription.period_end + GRACE)
    found = [one for one in await months.invoices() if one.user_id == made.subscription.user_id]
    assert [one.total for one in found] == [Decimal(49), Decimal(49)]


async def test_those_that_wait_for_an_earlier_one_hold_up_nobody_else(months: Months) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "pro")
    await months.use("ada", 100)
    await months.advance(months.now + timedelta(minutes=1))
    await months.act("ada", Wish("cancel", when="now"))
    await months.advance(months.now + timedelta(minutes=1))
    await months.act("ada", Wish("reactivate"))  # its first invoice waits for the last one's grace
    assert len(await months.invoices()) == 1
    assert await store.billing_periods.due(months.sql, months.now, 9) == []
    await months.advance(months.now + GRACE)
    bounds = [(one.period_start, one.period_end) for one in await months.invoices()]
    assert len(bounds) == 3 and bounds == sorted(bounds, key=lambda one: one[1])


async def test_a_trial_that_was_over_before_it_was_entered_is_not_charged(months: Months) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    start = months.now - timedelta(days=75)
    made = await months.create("ada", "pro", start=start, trial_days=70)
    assert made.subscription.status == "active" and not made.lines
    assert [one.total for one in await months.invoices()] == [Decimal(49)]  # of the one that runs


async def test_a_minimum_is_shared_by_the_time_before_it_ended_though_it_begins_again(
    months: Months,
) -> None:
    await months.plan("pro", "0.00", CENT_EACH | {"minimum_amount": "30.00"})
    made = await months.create("ada", "pro")
    running = made.subscription.running
    assert running is not None
    await months.advance(running.start + (running.end - running.start) / 4)
    await months.act("ada", Wish("cancel", when="now"))
    await months.advance(months.now + GRACE / 2)
    await months.act("ada", Wish("reactivate"))
    await months.advance(months.now + GRACE)
    [ended] = await months.invoices()
    assert ended.total == Decimal("7.50")


async def test_a_change_that_waited_for_a_change_of_plan_is_made(
    months: Months, database_url: str
) -> None:
    """It is read anew: the plan that was joined before it waited is another."""
    await months.plan("small", "31.00")
    await months.plan("large", "310.00")
    await months.create("ada", "small")
    other = await db.connect(database_url)
    try:
        first = Subscriptions(Pool(other), months.cycle._superseder, GRACE)  # type: ignore[arg-type]
        address = months.address("ada", None)
        async with months.sql.transaction():
            wish = Wish("change", "large")
            await carry_out(months.sql, address, wish, "test", months.now, GRACE)
            cancel = first.act(address, Wish("cancel"), actor="test", now=months.now)
            waiting = asyncio.create_task(cancel)
            asks = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = $1)"
            while not await months.sql.fetchval(asks, other.get_server_pid()):
                assert not waiting.done()
        ended = (await waiting).subscription
    finally:
        await other.close()
    assert (ended.plan_tier, ended.cancel_at) == ("large", ended.period_end)
