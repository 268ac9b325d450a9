"""One invoice: what was used, what is paid in advance, and nothing netted silently."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from ledger.domain.invoice import Draft, Late, PlanInForce, Used, draft
from ledger.domain.line import Line
from ledger.domain.period import Period, Span, period_at
from ledger.domain.proration import Advance
from tests.domain.plans import make_plan, price

MARCH = period_at(datetime(2026, 3, 5, tzinfo=UTC), date(2026, 1, 1), "month", "UTC")
APRIL = period_at(MARCH.end, date(2026, 1, 1), "month", "UTC")
CHANGE = datetime(2026, 3, 16, 12, tzinfo=UTC)  # half of March
FEE = Advance("pro", 1, Decimal("499.00"), APRIL)


def in_force(
    *prices: dict[str, object],
    version: int = 1,
    spans: tuple[Span, ...] = (MARCH,),
    period: Period = MARCH,
    trial: bool = False,
    **plan: Any,
) -> PlanInForce:
    return PlanInForce(make_plan(prices=list(prices), **plan), version, period, spans, trial)


def used(terms: PlanInForce, **quantities: str) -> Used:
    return Used(terms, {name: Decimal(quantity) for name, quantity in quantities.items()})


def late(terms: PlanInForce, billed: str, now: str) -> Late:
    return Late(terms, "calls", Decimal(billed), Decimal(now))


def told(invoice: Draft) -> list[tuple[str, str | None, str]]:
    return [(one.kind, one.usage_type, f"{one.amount:.2f}") for one in invoice.lines]


def test_lines_come_in_one_order_and_sum_to_the_total() -> None:
    terms = in_force(price(), price("minutes", unit_amount="2", maximum_amount="5.00"))
    change = Line(kind="proration", description="pro", amount=Decimal("10.00"))
    invoice = draft(
        "USD",
        [used(terms, minutes="4", calls="100")],
        prorations=[change],
        late=[late(terms, "0", "20")],
        advance=FEE,
        credit=Decimal("20.00"),
    )
    assert told(invoice) == [
        ("base_fee", None, "499.00"),
        ("proration", None, "10.00"),
        ("usage", "calls", "5.00"),
        ("usage", "minutes", "8.00"),
        ("maximum", "minutes", "-3.00"),
        ("adjustment", "calls", "1.00"),
        ("credit", None, "-20.00"),
    ]
    assert (invoice.subtotal, invoice.total) == (Decimal("520.00"), Decimal("500.00"))
    assert sum(one.amount for one in invoice.lines) == invoice.total
    assert invoice.credit_carried == 0


def test_a_line_says_whose_price_and_which_period() -> None:
    invoice = draft("USD", [used(in_force(price(), version=7), calls="1")], advance=FEE)
    fee, usage = invoice.lines
    assert (fee.plan_version, fee.span) == (1, APRIL)
    assert (usage.plan_tier, usage.plan_version, usage.span) == ("pro", 7, MARCH)


def test_usage_under_two_plan_versions_is_rated_by_each_with_its_whole_included_units() -> None:
    old = in_force(price(included="100"), tier="basic", spans=(Span(MARCH.start, CHANGE),))
    new = in_force(price(included="100", unit_amount="0.01"), spans=(Span(CHANGE, MARCH.end),))
    invoice = draft("USD", [used(old, calls="300"), used(new, calls="300")])
    assert [(one.plan_tier, one.quantity, one.amount) for one in invoice.lines] == [
        ("basic", Decimal(300), Decimal("10.00")),
        ("pro", Decimal(300), Decimal("2.00")),
    ]


def test_a_minimum_is_shared_by_the_time_its_plan_was_in_force_and_a_maximum_is_not() -> None:
    bounded = price(minimum_amount="10.00", maximum_amount="20.00")
    half = in_force(bounded, spans=(Span(MARCH.start, CHANGE),))
    assert told(draft("USD", [used(half)])) == [("minimum", "calls", "5.00")]
    assert draft("USD", [used(half, calls="99999")]).total == Decimal("20.00")
    never = in_force(bounded, spans=())
    assert told(draft("USD", [used(never, calls="1")])) == [("usage", "calls", "0.05")]


def test_two_stretches_of_one_plan_are_one() -> None:
    twice = (Span(MARCH.start, CHANGE), Span(CHANGE, MARCH.end))
    terms = in_force(price(minimum_amount="10.01"), spans=twice)
    assert draft("USD", [used(terms)]).total == Decimal("10.01")


def test_what_the_plan_does_not_price_is_shown_and_costs_nothing() -> None:
    [line] = draft("USD", [used(in_force(), calls="12", minutes="0")]).lines
    assert (line.kind, line.quantity, line.amount) == ("usage", Decimal(12), Decimal(0))


def test_a_trial_is_not_priced_now_or_later() -> None:
    terms = in_force(price(minimum_amount="10.00"), trial=True)
    invoice = draft("USD", [used(terms, calls="500")], late=[late(terms, "0", "5")], advance=FEE)
    assert told(invoice) == [("base_fee", None, "499.00")]


TIERS = [{"up_to": "100", "unit_amount": "1"}, {"up_to": None, "unit_amount": "0.5"}]


@pytest.mark.parametrize(
    ("changed", "billed", "now", "amount"),
    [
        ({}, "100", "120", "1.00"),
        ({}, "100", "90", "-0.50"),
        ({"included": "110"}, "100", "120", "0.50"),
        ({"model": "graduated", "unit_amount": None, "tiers": TIERS}, "90", "110", "15.00"),
        ({"model": "volume", "unit_amount": None, "tiers": TIERS}, "90", "110", "-35.00"),
        ({"model": "package", "package_size": "100", "unit_amount": "5"}, "90", "100", "0"),
        ({"model": "package", "package_size": "100", "unit_amount": "5"}, "90", "101", "5.00"),
        ({"minimum_amount": "6.00"}, "100", "110", "0"),
        ({"minimum_amount": "6.00"}, "100", "140", "1.00"),
        ({"maximum_amount": "5.50"}, "100", "140", "0.50"),
        ({"unit_amount": "0.004"}, "1", "2", "0.01"),
    ],
)
def test_late_usage_costs_what_its_period_costs_now_less_what_it_cost_as_billed(
    changed: dict[str, Any], billed: str, now: str, amount: str
) -> None:
    invoice = draft("USD", late=[late(in_force(price(**changed)), billed, now)])
    [line] = [one for one in invoice.lines if one.kind == "adjustment"]
    assert line.amount == Decimal(amount)
    assert line.quantity == Decimal(now) - Decimal(billed)
    assert line.description == f"calls: {now} instead of {billed}"


def test_late_records_that_change_nothing_have_a_line_over_nothing() -> None:
    [line] = draft("USD", late=[late(in_force(price()), "5", "5")]).lines
    assert (line.quantity, line.amount) == (Decimal(0), Decimal(0))
    assert line.description == "calls: 5 as before"


def test_less_than_nothing_is_carried_forward_and_both_sides_are_lines() -> None:
    first = draft("USD", late=[late(in_force(price()), "1000", "0")])
    assert told(first) == [("adjustment", "calls", "-50.00"), ("credit", None, "50.00")]
    assert (first.subtotal, first.total) == (Decimal("-50.00"), Decimal(0))
    second = draft("USD", [used(in_force(price()), calls="600")], credit=first.credit_carried)
    assert told(second) == [
        ("usage", "calls", "30.00"),
        ("credit", None, "-50.00"),
        ("credit", None, "20.00"),
    ]
    third = draft("USD", [used(in_force(price()), calls="600")], credit=second.credit_carried)
    assert (third.subtotal, third.total) == (Decimal("30.00"), Decimal("10.00"))
    assert third.credit_carried == 0


def test_credit_waits_while_nothing_is_charged() -> None:
    idle = draft("USD", [used(in_force(price(included="9")), calls="9")], credit=Decimal("5.00"))
    assert told(idle) == [("usage", "calls", "0.00")]
    assert (idle.total, idle.credit_carried) == (Decimal(0), Decimal("5.00"))
    assert not idle.is_issued


def test_nobody_is_sent_an_invoice_over_nothing() -> None:
    free = price(included="1000")
    assert not draft("USD", [used(in_force(free), calls="1000")]).is_issued
    assert not draft("USD").is_issued
    assert draft("USD", [used(in_force(free), calls="1001")]).is_issued
    paid_by_credit = draft("USD", [used(in_force(price()), calls="20")], credit=Decimal("1.00"))
    assert paid_by_credit.total == 0
    assert paid_by_credit.is_issued


def test_an_invoice_has_one_currency() -> None:
    for given in ({"used": [used(in_force(price()))]}, {"late": [late(in_force(), "0", "1")]}):
        with pytest.raises(ValueError, match="currency"):
            draft("EUR", **given)
