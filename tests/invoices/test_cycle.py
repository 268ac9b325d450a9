"""Periods end and are invoiced: what was used, once, and the base fee of what follows."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from ledger import db, store
from ledger.cycle import Cycle
from ledger.recovery import recover
from ledger.wishes import Wish
from tests.invoices.conftest import GRACE, TYPE, Months

CENT_EACH = {"usage_type": TYPE, "model": "per_unit", "unit_amount": "0.01"}


async def test_a_beginning_is_invoiced_at_once_and_a_period_when_it_is_over(
    months: Months,
) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "pro")
    [first] = await months.invoices()
    assert await months.lines(first) == [("base_fee", "49.00")]
    assert (first.number, first.status, first.total) == ("INV-00000001", "open", Decimal(49))
    await months.use("ada", 150)
    await months.use("ada", 100)
    end = await months.end_of_period("ada")
    _, second = await months.invoices()
    assert await months.lines(second) == [("base_fee", "49.00"), ("usage", "2.50")]
    assert (second.number, second.period_end, second.total) == (
        "INV-00000002", end, Decimal("51.50")
    )  # fmt: skip


async def test_what_is_used_in_a_trial_is_never_invoiced(months: Months) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "pro", trial_days=10)
    assert await months.invoices() == []
    await months.use("ada", 100)
    end = await months.end_of_period("ada")
    await months.use("ada", 10, at=end - timedelta(hours=2))
    await months.use("ada", 100)
    await months.end_of_period("ada")
    first, second = await months.invoices()
    assert await months.lines(first) == [("base_fee", "49.00")]
    assert await months.lines(second) == [("base_fee", "49.00"), ("usage", "1.00")]


async def test_it_waits_for_the_grace(months: Months) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    made = await months.create("ada", "pro")
    end = made.subscription.period_end
    assert end is not None
    await months.advance(end + GRACE - timedelta(seconds=1))
    assert len(await months.invoices()) == 1
    await months.advance(end + GRACE)
    assert len(await months.invoices()) == 2


async def test_it_waits_until_the_close_is_drained(months: Months) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    made = await months.create("ada", "pro")
    await months.use("ada", 100)
    assert made.subscription.period_end is not None
    months.now = made.subscription.period_end + GRACE
    offset = months.now - made.subscription.created_at
    await months.sql.execute(
        "UPDATE service_clock SET offset_ms = $1", offset // timedelta(milliseconds=1)
    )
    while await months.cycle.run_once(months.now):
        pass  # Redis is not there yet, and nothing is drained
    assert len(await months.invoices()) == 1
    await months.sql.execute("UPDATE outbox SET next_attempt_at = NOW() WHERE done_at IS NULL")
    await months.advance(months.now)
    await months.cycle._superseder.run_once(months.sql)
    await months.settle()
    _, second = await months.invoices()
    assert await months.lines(second) == [("base_fee", "49.00"), ("usage", "1.00")]


async def test_late_usage_adjusts_the_next_invoice_and_keeps_tiers_right(months: Months) -> None:
    graduated = {
        "usage_type": TYPE,
        "model": "graduated",
        "tiers": [
            {"up_to": "100", "unit_amount": "0.10"},
            {"up_to": None, "unit_amount": "0.01"},
        ],
    }
    await months.plan("pro", "49.00", graduated)
    await months.create("ada", "pro")
    await months.use("ada", 90)
    end = await months.end_of_period("ada")
    await months.use("ada", 20, at=end - timedelta(hours=1))
    await months.use("ada", 5)
    await months.end_of_period("ada")
    third = (await months.invoices())[2]
    assert await months.lines(third) == [
        ("base_fee", "49.00"), ("usage", "0.50"), ("adjustment", "1.10")
    ]  # fmt: skip


async def test_an_upgrade_within_a_period_is_on_its_invoice(months: Months) -> None:
    await months.plan("small", "31.00", CENT_EACH)
    await months.plan("large", "310.00", CENT_EACH | {"unit_amount": "0.02"})
    made = await months.create("ada", "small")
    await months.use("ada", 100)
    running = made.subscription.running
    assert running is not None
    await months.advance(max(months.now, running.start + (running.end - running.start) / 2))
    upgraded = await months.act("ada", Wish("change", "large"))
    await months.use("ada", 100)
    await months.end_of_period("ada")
    second = (await months.invoices())[1]
    lines = await months.lines(second)
    assert [kind for kind, _ in lines] == ["base_fee", "credit", "proration", "usage", "usage"]
    assert lines[0] == ("base_fee", "310.00")
    assert [amount for _, amount in lines[1:3]] == [f"{one.amount:.2f}" for one in upgraded.lines]
    assert [amount for _, amount in lines[3:]] == ["1.00", "2.00"]


async def test_a_cancelled_one_is_invoiced_to_its_end_and_pays_nothing_ahead(
    months: Months,
) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "pro")
    await months.use("ada", 100)
    await months.act("ada", Wish("cancel"))
    end = await months.end_of_period("ada")
    second = (await months.invoices())[1]
    assert await months.lines(second) == [("usage", "1.00")]
    await months.advance(end + timedelta(days=70))
    assert len(await months.invoices()) == 2


async def test_cancelled_now_it_is_invoiced_now_and_what_comes_late_a_month_later(
    months: Months,
) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "pro")
    await months.use("ada", 100)
    await months.advance(months.now + timedelta(minutes=5))
    ended = months.now
    await months.act("ada", Wish("cancel", when="now"))
    await months.advance(ended + GRACE)
    assert await months.lines((await months.invoices())[1]) == [("usage", "1.00")]
    await months.advance(ended + timedelta(days=40))
    assert len(await months.invoices()) == 2


async def test_an_organizations_invoice_is_of_all_its_users(months: Months) -> None:
    await months.plan("team", "100.00", CENT_EACH)
    await months.create("boss", "team", organization="acme")
    for user in ("ada", "ben"):
        await months.use(user, 50, organization_id="acme")
    await months.use("ada", 500)  # her own, on the default tier: nobody is invoiced for it
    await months.end_of_period("boss", "acme")
    second = (await months.invoices())[1]
    assert await months.lines(second) == [("base_fee", "100.00"), ("usage", "1.00")]


async def test_months_that_nobody_looked_are_invoiced_one_by_one(months: Months) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    made = await months.create("ada", "pro")
    await months.use("ada", 100)
    assert made.subscription.period_end is not None
    await months.advance(made.subscription.period_end + timedelta(days=62) + GRACE)
    found = await months.invoices()
    assert [one.total for one in found[:3]] == [Decimal(49), Decimal(50), Decimal(49)]
    bounds = [(one.period_start, one.period_end) for one in found[1:]]
    assert all(a[1] == b[0] for a, b in pairwise(bounds))


async def test_numbers_have_no_gaps_and_nothing_to_pay_has_none(months: Months) -> None:
    await months.plan("free", "0.00")
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "free")
    await months.create("ben", "pro")
    await months.use("ada", 100)
    await months.end_of_period("ada")
    found = await months.invoices()
    assert sorted(one.number for one in found if one.number) == [
        f"INV-{number:08d}" for number in range(1, sum(one.number is not None for one in found) + 1)
    ]
    free = [one for one in found if one.number is None]
    assert {(one.status, one.total) for one in free} == {("paid", Decimal(0))}
    issued = "SELECT COUNT(*) FROM audit_events WHERE event_type = 'invoice_issued'"
    assert await months.sql.fetchval(issued) == len(found) - len(free)


async def test_what_looks_like_a_runaway_waits_for_a_person(months: Months) -> None:
    await months.plan("pro", "2000000.00", CENT_EACH)
    await months.create("ada", "pro")
    [first] = await months.invoices()
    assert (first.status, first.number, first.issued_at) == ("draft", None, None)
    assert first.parked
    [event] = await months.sql.fetch(
        "SELECT event_type FROM audit_events WHERE event_type LIKE 'invoice%'"
    )
    assert event["event_type"] == "invoice_parked"


@pytest.mark.parametrize("workers", [4])
async def test_any_number_of_workers_make_one_invoice(months: Months, workers: int) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    made = await months.create("ada", "pro")
    await months.use("ada", 100)
    assert made.subscription.period_end is not None
    connections = [await db.connect(months.service.settings.database_url) for _ in range(workers)]
    try:
        superseder = months.cycle._superseder
        cycles = [
            Cycle(one, superseder, grace=GRACE, park_above=Decimal(10**6)) for one in connections
        ]
        now = months.now = made.subscription.period_end + GRACE
        await months.sql.execute(
            "UPDATE service_clock SET offset_ms = $1",
            (now - made.subscription.created_at) // timedelta(milliseconds=1),
        )
        for partition in range(months.service.settings.partitions):
            await recover(months.sql, months.service.scripts, partition)

        async def work(cycle: Cycle) -> int:
            try:
                return await cycle.run_once(now)
            except db.UNAVAILABLE:
                return 0  # lost a race with another: what it would have done is done

        for _ in range(6):
            await asyncio.gather(*(work(one) for one in cycles))
            await months.service.drained()
    finally:
        for one in connections:
            await one.close()
    assert [one.total for one in await months.invoices()] == [Decimal(49), Decimal(50)]


async def test_a_period_is_closed_in_the_audit_trail(months: Months) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "pro")
    await months.end_of_period("ada")
    events: list[Any] = await months.sql.fetch(
        "SELECT event_type FROM audit_events ORDER BY occurred_at"
    )
    kinds = [one["event_type"] for one in events]
    assert "period_closed" in kinds and kinds.count("invoice_issued") == 2
    assert await store.billing_periods.to_close(months.sql, months.now, 9) == []
