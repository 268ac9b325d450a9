"""Invoices beside Stripe's: what does not agree is found and named, and nothing else is."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from ledger import stripe_pages
from ledger.domain.stripe_invoice import OUR_ID, Bill, unix_seconds
from ledger.reconcile import stripe_report
from ledger.reconcile.against_stripe import WINDOW, AgainstStripe, days_of
from ledger.stripe_reading import StripeReading
from tests.stripe.bills import bill, drawn, example
from tests.stripe.owed.beside import HOUR, ONE, OTHER, delivered, named
from tests.stripe.owed.shop import Shop
from tests.stripe_fake.books import Object
from tests.stripe_fake.faults import Fault


def many_lines(count: int, seed: int) -> Bill:
    line = drawn(0).lines[0]
    lines = [msgspec.structs.replace(line, line_id=uuid4()) for _ in range(count)]
    return bill(tuple(lines), seed)


async def test_where_both_sides_agree_nothing_is_found_and_the_sums_are_the_same(
    shop: Shop,
) -> None:
    many = many_lines(12, 7)  # more than an invoice of Stripe's carries itself
    await delivered(shop, ONE, OTHER, many, example(8))
    shop.fake.books.customer({})  # somebody else's, as is this
    shop.fake.books.invoice(
        {"customer": "cus_00000000000001", "currency": "usd", "number": "A-1", "days_until_due": 1}
    )
    report = await shop.compared()
    assert report.findings == [] and report.not_compared == []
    bills = [ONE, OTHER, many, example(8)]
    assert report.compared["invoices"] == 4
    assert report.compared["lines"] == sum(len(one.lines) for one in bills)
    total, said = sum(one.total for one in bills), report.totals["USD"]
    assert said.lines == said.ours == said.theirs == total
    usage = [line for one in bills for line in one.lines if line.kind == "usage"]
    assert said.usage == sum(line.amount for line in usage)


async def test_while_delivery_is_under_way_nothing_is_found_and_what_waits_is_said(
    shop: Shop,
) -> None:
    await shop.issue(ONE)
    states = []
    while await shop.work.run_once():
        report = await shop.compared()
        assert report.findings == []
        states.append(report.waits["waiting"])
    assert states[0] == 1 and states[-1] == 0
    assert report.totals["USD"].waiting == 0
    await shop.void(ONE.invoice_id)
    report = await shop.compared()
    assert (report.findings, report.waits["waiting"]) == ([], 1)
    [waiting] = report.on_their_way
    assert (waiting.number, waiting.state) == (ONE.number, "waiting")
    await shop.deliver()
    assert (await shop.compared()).waits["waiting"] == 0


async def test_an_object_whose_answer_was_lost_is_no_second_one(shop: Shop) -> None:
    await shop.issue(ONE)
    shop.fake.faults = [Fault.LOSE_ANSWER]
    await shop.work.run_once()
    assert len(shop.fake.books.all("customer")) == 1
    assert (await shop.compared()).findings == []
    shop.clock.advance(2 * HOUR)
    await shop.work.run_once()
    shop.fake.faults = [Fault.LOSE_ANSWER]
    await shop.work.run_once()
    assert len(shop.fake.books.all("invoice")) == 1
    assert (await shop.compared()).findings == []


FIELDS: dict[str, Any] = {
    "total": 1,
    "currency": "eur",
    "number": "INV-1",
    "customer": "cus_other",
    "status": "draft",
}


async def test_every_field_that_is_not_the_same_is_named_with_both_figures(shop: Shop) -> None:
    bills = [drawn(50 + n) for n in range(len(FIELDS))]
    theirs = await delivered(shop, *bills)
    assert (await shop.compared()).findings == []
    for there, (name, value) in zip(theirs, FIELDS.items(), strict=True):
        there[name] = value
    report = await shop.compared()
    wanted = zip(FIELDS, bills, strict=True)
    assert named(report) == {("different", name, one.number) for name, one in wanted}
    assert report.counts == {"missing": 0, "extra": 0, "different": len(FIELDS), "missed": 0}
    [total] = [one for one in report.findings if one.what == "total"]
    assert (total.ours, total.theirs) == (f"{bills[0].total.normalize():f}", "0.01")
    assert (total.invoice_id, total.stripe_id) == (bills[0].invoice_id, theirs[0]["id"])


async def test_what_is_settled_here_alone_or_gone_there_is_found(shop: Shop) -> None:
    bills = [drawn(60 + n) for n in range(4)]
    void, paid, partly, gone = bills
    theirs = await delivered(shop, *bills)
    update = "UPDATE invoices SET status = $2, amount_paid = $3 WHERE invoice_id = $1"
    for one, status, amount in ((void, "void", 0), (paid, "paid", 0), (partly, "open", 1)):
        await shop.sql.execute(update, one.invoice_id, status, amount)
    del shop.fake.books.objects["invoice"][theirs[3]["id"]]
    report = await shop.compared()
    assert named(report) == {
        ("different", "status", void.number),
        ("different", "status", paid.number),
        ("different", "amount_paid", partly.number),
        ("missing", "invoice", gone.number),
    }
    said = report.totals["USD"]
    assert said.theirs - said.ours == -gone.total


async def test_a_line_that_is_wrong_doubled_or_not_ours_is_named(shop: Shop) -> None:
    bills = [many_lines(2, 110 + n) for n in range(3)]
    theirs = await delivered(shop, *bills)
    books, expected = shop.fake.books, set()
    swapped, foreign, doubled = (books.items(one["id"]) for one in theirs)
    for item, cents in zip(swapped, (5, -5), strict=True):  # the total stays
        item["amount"] += cents
        expected.add(("different", f"line {mark(item)}", bills[0].number))
    expected.add(("different", f"line {mark(foreign[0])}", bills[1].number))
    foreign[0]["metadata"] = {}
    expected.add(("different", f"line {foreign[0]['id']}", bills[1].number))
    expected.add(("different", f"line {mark(doubled[1])}", bills[2].number))
    doubled[1]["metadata"] = dict(doubled[0]["metadata"])
    expected.add(("different", f"line {doubled[1]['id']}", bills[2].number))
    for one in theirs:
        one["lines"] = books.lines_of(one["id"], books.items(one["id"]))
    assert named(await shop.compared()) == expected


def mark(item: Object) -> str:
    return str(item["metadata"][OUR_ID])


async def test_what_is_in_stripe_under_an_id_or_number_of_ours_is_extra(shop: Shop) -> None:
    there, _ = await delivered(shop, ONE, OTHER)
    books, ours = shop.fake.books, {OUR_ID: str(ONE.invoice_id)}
    said = {"customer": there["customer"], "currency": "usd", "days_until_due": 1}
    second = books.invoice({**said, "number": "A-1", "metadata": ours})
    unknown = books.invoice({**said, "number": "A-2", "metadata": {OUR_ID: str(uuid4())}})
    copied = books.invoice({**said, "number": "A-3"})
    copied["number"] = OTHER.number
    unknown.update(currency="isk", total=150)  # a krona and a half: no invoice of ours could be
    customer = books.customer({"metadata": {OUR_ID: str(ONE.payer_id)}})
    stranger = books.customer({"metadata": {OUR_ID: str(uuid4())}})
    report = await shop.compared()
    assert {(one.kind, one.what, one.stripe_id) for one in report.findings} == {
        ("extra", "second invoice of one here", second["id"]),
        ("extra", "invoice, of none here", unknown["id"]),
        ("extra", "invoice with a number of ours", copied["id"]),
        ("extra", "second customer of a payer", customer["id"]),
        ("extra", "customer, of no payer here", stranger["id"]),
    }
    assert "1.50 ISK" in stripe_report.text(report)


async def test_an_id_that_somebody_else_has_chosen_does_not_leave_and_is_said(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await delivered(shop, ONE)
    monkeypatch.setattr(stripe_pages, "PAGE", 1)
    shop.fake.books.customer({})["id"] = "maria"
    report = await shop.compared()
    assert report.not_compared == ["customers: one in Stripe has an id of a form of its own"]
    assert report.compared["invoices"] == 1


async def test_what_is_not_settled_is_compared_however_old_and_other_days_when_asked(
    shop: Shop,
) -> None:
    there, settled = await delivered(shop, ONE, OTHER)
    old = shop.clock.now() - 2 * WINDOW
    await shop.sql.execute("UPDATE invoices SET issued_at = $1", old)
    await shop.sql.execute(
        "UPDATE invoices SET status = 'void' WHERE invoice_id = $1", OTHER.invoice_id
    )
    for one in (there, settled):
        one["created"] = unix_seconds(old)
    there["total"] += 1
    report = await shop.compared()
    assert named(report) == {("different", "total", ONE.number)}
    assert await between(shop, old - HOUR, old + HOUR) == {
        ("different", "total", ONE.number),
        ("different", "status", OTHER.number),
    }
    assert await between(shop, old + HOUR, None) == set()


async def between(
    shop: Shop, since: datetime, until: datetime | None
) -> set[tuple[str, str, str | None]]:
    now = shop.clock.now()
    days = days_of(now, since, until)
    return named(await AgainstStripe(shop.sql, StripeReading(shop.api), days, now).run())


async def test_all_pages_are_read_and_each_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, *_ = await delivered(shop, *(drawn(one) for one in range(5)))
    there["total"] += 1  # the oldest: on the last page
    monkeypatch.setattr(stripe_pages, "PAGE", 2)
    shop.fake.seen.clear()
    report = await shop.compared()
    assert report.compared["invoices"] == 5 and len(report.findings) == 1
    asked = [one for one in shop.fake.seen if one.path == "/v1/invoices"]
    assert len(asked) == 3
    assert [one for one in shop.fake.seen if one.method != "get"] == []


async def test_what_is_parked_or_skipped_is_said_apart(shop: Shop) -> None:
    await delivered(shop, OTHER)
    shop.fake.books.invoice(
        {"customer": "cus_00000000000001", "currency": "usd", "number": ONE.number,
         "days_until_due": "30"}
    )  # fmt: skip
    await shop.issue(ONE)
    await shop.deliver()
    report = await shop.compared()
    assert named(report) == {("extra", "invoice with a number of ours", ONE.number)}
    [parked] = report.on_their_way
    assert (parked.state, parked.number) == ("parked", ONE.number)
    [call] = await shop.parked()
    assert parked.call_id == call.call_id
    assert report.totals["USD"].parked == ONE.total
    said = stripe_report.text(report)
    assert f"{ONE.number}: {ONE.total} USD, issued" in said and f"call {call.call_id}" in said
