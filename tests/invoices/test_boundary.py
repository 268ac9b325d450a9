"""A period ends under load: each event is in exactly one period and one plan version."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from decimal import Decimal

import pytest

from ledger import store
from ledger.wishes import Wish
from tests.invoices.conftest import GRACE, TYPE, Months

CENT_EACH = {"usage_type": TYPE, "model": "per_unit", "unit_amount": "0.01"}
EVENTS, BATCH = 10_000, 1_000
NEAR_MS = 5


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may shed a part of a large batch, which is not what is tested here."""
    monkeypatch.setattr("gateway.lane.WAIT_S", 10.0)


async def test_ten_thousand_events_around_the_end_are_on_the_right_invoice(months: Months) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    made = await months.create("ada", "pro")
    end = made.subscription.period_end
    assert end is not None
    await months.advance(end + timedelta(seconds=2))
    dice = random.Random(5)
    before = 0
    for first in range(0, EVENTS, BATCH):
        records = []
        for number in range(first, first + BATCH):
            offset_us = dice.randrange(-NEAR_MS * 1000, NEAR_MS * 1000)
            quantity = 1 + number % 3
            at = end + timedelta(microseconds=offset_us)
            # Kept in milliseconds, rounded down: what is before the end stays before it.
            before += quantity if offset_us < 0 else 0
            records.append(
                {
                    "user_id": "ada", "usage_type": TYPE, "quantity": quantity,
                    "occurred_at": at.isoformat(),
                }
            )  # fmt: skip
        _, said, _ = await months.service.post("/usage/batch", {"records": records})
        assert said["accepted"] == BATCH
    total = sum(1 + number % 3 for number in range(EVENTS))
    await months.advance(end + GRACE)
    await months.end_of_period("ada")
    _, second, third = await months.invoices()
    used = [
        line.quantity
        for invoice in (second, third)
        for line in (await lines(months, invoice))
        if line.kind in ("usage", "adjustment")
    ]
    assert used == [Decimal(before), Decimal(total - before)]


async def test_a_period_that_ends_under_load_splits_usage_by_the_time_it_was_recorded(
    months: Months,
) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    await months.plan("max", "490.00", CENT_EACH | {"unit_amount": "0.02"})
    made = await months.create("ada", "pro")
    await months.create("boss", "pro", organization="acme")
    end = made.subscription.period_end
    assert end is not None
    await months.advance(end - timedelta(seconds=1.5))
    stop = asyncio.Event()
    last: asyncio.Queue[None] = asyncio.Queue()

    async def load(user: str, organization: str | None) -> None:
        while not stop.is_set():
            await months.use(user, 1, organization_id=organization)
            last.put_nowait(None)

    callers = [load("ada", None), *(load(f"user {number}", "acme") for number in range(5))]
    tasks = [asyncio.create_task(one) for one in callers]

    async def recorded(count: int) -> None:
        for _ in range(last.qsize() + count):
            await last.get()

    for plan in ("max", "pro") * 3:
        await recorded(20)
        wish = Wish("change", plan, when="now")  # and no waiting for a drain that never ends
        await months.subscriptions.act(
            months.address("ada", None), wish, actor="test", now=months.now
        )
    periods = "SELECT COUNT(DISTINCT billing_period) FROM usage_records"
    async with asyncio.timeout(30):
        while await months.sql.fetchval(periods) < 2:
            await recorded(20)
            await months.service.drain.run_once(range(months.service.settings.partitions))
    await recorded(50)
    stop.set()
    await asyncio.gather(*tasks)
    await months.service.drained()
    assert not await months.sql.fetch(
        "SELECT 1 FROM usage_records WHERE (recorded_at >= $1)"
        " <> (quota_period = $1) OR (recorded_at >= $1) <> (billing_period = $1::DATE)",
        end,
    )
    assert await months.sql.fetchval("SELECT COUNT(DISTINCT plan_tier) FROM usage_records") == 2
    await months.advance(end + GRACE)
    await months.end_of_period("ada")
    invoiced = await months.sql.fetchval(
        "SELECT SUM(quantity) FROM invoice_lines WHERE kind IN ('usage', 'adjustment')"
    )
    assert invoiced == await months.sql.fetchval("SELECT SUM(quantity) FROM usage_records")


async def lines(
    months: Months, invoice: store.invoices.Invoice
) -> list[store.invoices.InvoiceLine]:
    return (await store.invoices.lines(months.sql, [invoice.invoice_id]))[invoice.invoice_id]
