"""A subscription that ends and begins again on the day that its period began: two periods of one
day, each billed by itself."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest

from ledger.wishes import Wish
from tests.invoices.conftest import GRACE, TYPE, Months
from tests.invoices.test_corrections import correct
from tests.invoices.test_reconcile import found

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CENT = Decimal("0.01")


async def begin(months: Months, **price: Any) -> tuple[datetime, datetime]:
    """ada begins at midnight of a day to come; that moment, and the end of her first period."""
    said = {"usage_type": TYPE, "model": "per_unit", "unit_amount": "0.01", **price}
    await months.plan("pro", "49.00", said)
    midnight = datetime.combine(months.now.date() + timedelta(days=1), time(), UTC)
    await months.advance(midnight)
    made = await months.create("ada", "pro")
    assert made.subscription.period_end is not None
    return midnight, made.subscription.period_end


async def usage(months: Months) -> list[tuple[str, Decimal]]:
    """Kinds and amounts of all lines but base fees, oldest first."""
    lines = [line for one in await months.invoices() for line in await months.lines(one)]
    return [(kind, Decimal(amount)) for kind, amount in lines if kind != "base_fee"]


@pytest.mark.parametrize("looked_between", [True, False])
async def test_the_share_of_a_minimum_is_charged_once(
    months: Months, *, looked_between: bool
) -> None:
    start, end = await begin(months, minimum_amount="310.00")
    await months.advance(start + 10 * HOUR)
    await months.act("ada", Wish("cancel", when="now"))
    if looked_between:
        await months.advance(start + 10 * HOUR + GRACE)
    await months.move(start + 12 * HOUR)
    await months.act("ada", Wish("reactivate"))
    await months.advance(end + GRACE)
    (_, first), (_, second) = await usage(months)
    hours = (end - start) // HOUR
    assert abs(first - Decimal(3100) / hours) <= CENT
    assert abs(first + second - 310 * Decimal(hours - 2) / hours) <= CENT


async def test_each_is_billed_for_its_own_usage(months: Months) -> None:
    start, end = await begin(months, included="100")
    await months.use("ada", 150)
    await months.advance(start + 10 * HOUR)
    await months.act("ada", Wish("cancel", when="now"))
    await months.advance(start + 12 * HOUR)
    await months.act("ada", Wish("reactivate"))
    await months.use("ada", 400)
    await months.advance(end + GRACE)
    assert await usage(months) == [("usage", Decimal("0.50")), ("usage", Decimal("3.00"))]


async def test_what_comes_late_for_both_is_added_to_what_was_billed(months: Months) -> None:
    start, end = await begin(months)
    await months.use("ada", 150)
    await months.advance(start + 10 * HOUR)
    await months.act("ada", Wish("cancel", when="now"))
    await months.advance(start + 12 * HOUR)
    await months.act("ada", Wish("reactivate"))
    await months.advance(end + GRACE)
    await months.use("ada", 20, at=start + HOUR)
    await months.end_of_period("ada")
    assert await usage(months) == [("usage", Decimal("1.50")), ("adjustment", Decimal("0.20"))]


async def test_what_cancels_itself_out_in_the_second_is_on_a_line_all_the_same(
    months: Months,
) -> None:
    start, end = await begin(months)
    first = await months.use("ada", 100)
    await months.advance(start + 10 * HOUR)
    await months.act("ada", Wish("cancel", when="now"))
    await months.advance(start + 12 * HOUR)
    await months.act("ada", Wish("reactivate"))
    await months.use("ada", 10)
    await months.service.drained()
    await correct(months, first, -10)
    await months.advance(end + GRACE)
    await months.use("ada", 10, at=start + 13 * HOUR)
    await months.end_of_period("ada")
    assert await usage(months) == [
        ("usage", Decimal("1.00")), ("adjustment", Decimal(0)), ("adjustment", Decimal("0.10")),
    ]  # fmt: skip
    assert await found(months) == []


async def test_one_that_ends_and_begins_again_at_one_instant_is_billed(months: Months) -> None:
    await begin(months)
    for _ in range(3):
        await months.act("ada", Wish("cancel", when="now"))
        await months.act("ada", Wish("reactivate"))
    await months.end_of_period("ada")
    # Four beginnings, and what comes after the first of them that ends by itself.
    assert [await months.lines(one) for one in await months.invoices()] == 5 * [
        [("base_fee", "49.00")]
    ]
    assert await found(months) == []


async def test_what_was_used_before_it_began_again_and_is_told_of_afterwards_is_on_a_line(
    months: Months,
) -> None:
    start, _ = await begin(months)
    await months.advance(start + 15 * DAY)
    await months.act("ada", Wish("cancel", when="now"))
    await months.advance(start + 20 * DAY)
    await months.act("ada", Wish("reactivate"))
    await months.use("ada", 100, at=start + 12 * DAY)
    await months.end_of_period("ada")
    assert await usage(months) == [("adjustment", Decimal("1.00"))]
    assert await found(months) == []
