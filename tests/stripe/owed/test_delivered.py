"""An invoice that was issued is in Stripe, once, in order, as it is here."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest

from ledger import store, stripe_calls
from ledger.domain.stripe_invoice import Bill
from ledger.invoice_actions import NotPossible
from ledger.stripe_delivery import LEASE
from tests.stripe.bills import drawn, example
from tests.stripe.owed.shop import Shop
from tests.stripe_fake.faults import Fault
from tests.stripe_fake.server import RETRY_AFTER_S

ONE = drawn(1)


def paths(shop: Shop) -> list[str]:
    return [one.path for one in shop.fake.seen if one.method == "post"]


async def describe(shop: Shop, organization: UUID, customer: str | None) -> None:
    await shop.sql.execute(
        "INSERT INTO organizations (organization_id, name, timezone, baa, retention_class,"
        " legal_hold, cost_centers, stripe_customer, created_at, updated_at)"
        " VALUES ($1, 'x', 'UTC', 'none', 'standard', FALSE, '{}', $2, NOW(), NOW())"
        " ON CONFLICT (organization_id) DO UPDATE SET stripe_customer = $2",
        organization,
        customer,
    )


async def test_an_issued_invoice_is_in_stripe_and_says_so(shop: Shop) -> None:
    await shop.issue(example())
    await shop.deliver()
    assert await shop.holds_once(example()) == "open"
    assert (await shop.events())["invoice_delivered"] == 1
    state = await store.stripe_state.look(shop.sql)
    assert (state.waiting, state.parked) == (0, 0)
    assert (await store.stripe_state.outcomes(shop.sql)) == {"sent": 7}
    seen = len(shop.fake.seen)
    await shop.deliver()
    assert len(shop.fake.seen) == seen, "it is sent once"


async def test_an_invoice_over_nothing_is_not_sent(shop: Shop) -> None:
    fee, usage, *_ = example().lines
    lines = (fee, msgspec.structs.replace(usage, kind="credit", amount=-fee.amount))
    await shop.issue(msgspec.structs.replace(example(), lines=lines, total=Decimal(0)))
    await shop.deliver()
    assert shop.fake.seen == []


async def test_a_payer_has_one_customer_and_its_invoices_in_order(shop: Shop) -> None:
    second = msgspec.structs.replace(drawn(2), payer_id=ONE.payer_id)
    await shop.issue(second)
    await shop.issue(ONE)
    shop.fake.faults = [Fault.AWAY]
    await shop.deliver([shop.worker(one) for one in (shop.sql, *shop.connections)])
    numbers = [one["number"] for one in shop.fake.books.all("invoice")]
    assert numbers == [second.number, ONE.number]  # newest first
    for bill in (ONE, second):
        await shop.holds_once(bill)


async def test_the_customer_that_the_organization_says_is_used_and_none_made(shop: Shop) -> None:
    given = shop.fake.books.customer({})["id"]
    await describe(shop, ONE.payer_id, given)
    await shop.issue(ONE, scope="organization")
    await shop.deliver()
    [invoice] = shop.ours("invoice", ONE.invoice_id)
    assert invoice["customer"] == given
    assert len(shop.fake.books.all("customer")) == 1


async def test_a_draft_that_was_begun_stays_with_its_customer(shop: Shop) -> None:
    first, other = (shop.fake.books.customer({})["id"] for _ in range(2))
    await describe(shop, ONE.payer_id, first)
    await shop.issue(ONE, scope="organization")
    shop.fake.faults = [Fault.LOSE_ANSWER]
    await shop.work.run_once()
    await shop.work.run_once()
    await describe(shop, ONE.payer_id, other)
    second = msgspec.structs.replace(drawn(2), payer_id=ONE.payer_id)
    await shop.issue(second, scope="organization")
    await shop.deliver()
    customers = {one["number"]: one["customer"] for one in shop.fake.books.all("invoice")}
    assert customers == {ONE.number: first, second.number: other}


async def test_a_customer_that_stripe_does_not_know_is_mended_by_another(shop: Shop) -> None:
    await describe(shop, ONE.payer_id, "cus_mistyped")
    await shop.issue(ONE, scope="organization")
    await shop.deliver()
    [parked] = await shop.parked()
    assert (parked.operation, parked.last_error) == ("invoice", "refused: resource_missing")
    mended = shop.fake.books.customer({})["id"]
    await describe(shop, ONE.payer_id, mended)
    await stripe_calls.retry(shop.sql, parked.call_id, actor="ann", now=shop.clock.now())
    await shop.deliver()
    [invoice] = shop.ours("invoice", ONE.invoice_id)
    assert (invoice["customer"], invoice["status"]) == (mended, "open")


async def test_a_payer_whose_calls_fail_holds_up_nobody(shop: Shop) -> None:
    await shop.issue(ONE)
    await shop.issue(drawn(2))
    shop.fake.faults = [Fault.AWAY]
    while await shop.work.run_once():
        pass
    assert await shop.holds_once(drawn(2)) == "open"
    assert shop.ours("customer", ONE.payer_id) == []


async def test_a_rate_limit_is_waited_out(shop: Shop) -> None:
    await shop.issue(ONE)
    shop.fake.faults = [Fault.RATE_LIMIT]
    await shop.work.run_once()
    seen = len(shop.fake.seen)
    shop.clock.advance(timedelta(seconds=RETRY_AFTER_S - 1))
    await shop.work.run_once()
    assert len(shop.fake.seen) == seen
    shop.clock.advance(timedelta(hours=1))
    await shop.work.run_once()
    assert len(shop.fake.seen) == seen + 1


async def test_waits_grow_to_an_hour_and_are_spread(shop: Shop) -> None:
    waits = {n: [shop.work._backoff(n) for _ in range(200)] for n in (1, 5, 12, 500)}
    seconds = {
        n: (min(some).total_seconds(), max(some).total_seconds()) for n, some in waits.items()
    }
    assert all(least >= 1 for least, _ in seconds.values())
    assert 1.5 < seconds[1][1] <= 2
    assert 24 < seconds[5][1] <= 32
    assert 3000 < seconds[12][1] <= seconds[500][1] <= 3600


async def test_two_workers_never_make_one_call_at_once(shop: Shop) -> None:
    await shop.issue(ONE)
    other = shop.worker(shop.connections[0])
    reached = asyncio.Event()

    def hangs() -> Fault:
        reached.set()
        return Fault.TIME_OUT_BEFORE

    shop.fake.choose = hangs
    slow = asyncio.ensure_future(shop.work.run_once())
    await reached.wait()
    shop.fake.choose = lambda: None
    assert not await other.run_once()
    slow.cancel()  # it dies, and its call is its own for as long as it could be at it
    await asyncio.gather(slow, return_exceptions=True)
    shop.clock.advance(LEASE - timedelta(seconds=1))
    assert not await other.run_once()
    assert len(shop.fake.seen) == 1
    shop.clock.advance(timedelta(seconds=1))
    await shop.deliver([other])
    await shop.holds_once(ONE)


async def voided(shop: Shop, bill: Bill, looks: int) -> str | None:
    """Voids after so many calls; the status in Stripe in the end."""
    await shop.issue(bill)
    for _ in range(looks):
        await shop.work.run_once()
    await shop.void(bill.invoice_id)
    await shop.deliver()
    found = shop.ours("invoice", bill.invoice_id)
    assert len(found) <= 1 and await shop.parked() == []
    return str(found[0]["status"]) if found else None


async def test_an_invoice_that_is_voided_before_its_draft_is_sent_is_never_sent(shop: Shop) -> None:
    assert await voided(shop, drawn(1), 0) is None  # owed by nobody yet
    assert await voided(shop, drawn(2), 1) is None  # the customer was made
    assert paths(shop) == ["/v1/customers"]


async def test_one_that_is_voided_later_is_void_in_stripe_too(shop: Shop) -> None:
    calls = len(drawn(3).lines) + 3
    for seed, looks in enumerate((2, 3, calls - 1, calls, calls + 1), start=10):
        bill = msgspec.structs.replace(drawn(3), **_ids(seed))
        assert await voided(shop, bill, looks) == "void"
    assert (await shop.events())["invoice_void_delivered"] == 5


async def test_a_void_while_the_draft_is_on_its_way_reaches_it(shop: Shop) -> None:
    await shop.issue(ONE)
    await shop.work.run_once()
    shop.fake.faults = [Fault.LOSE_ANSWER]
    await shop.work.run_once()  # the draft is made, and nobody knows
    await shop.void(ONE.invoice_id)
    await shop.deliver()
    assert [one["status"] for one in shop.fake.books.all("invoice")] == ["void"]
    with pytest.raises(NotPossible):
        await shop.void(ONE.invoice_id)


def _ids(seed: int) -> dict[str, object]:
    other = drawn(seed)
    lines = [
        msgspec.structs.replace(line, line_id=UUID(int=line.line_id.int ^ seed))
        for line in drawn(3).lines
    ]
    return {
        "invoice_id": other.invoice_id,
        "payer_id": other.payer_id,
        "number": other.number,
        "lines": tuple(lines),
    }
