"""Every cent of a year, twice: as the product bills it and as fractions say."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from ledger.domain.invoice import Draft
from ledger.domain.line import Line
from tests.billing.conftest import PER_TEST
from tests.billing.oracle import Bill, Charged, bills
from tests.billing.scenarios import MODELS, MONTHS, POLICIES, TYPES, scenario
from tests.billing.year import drafts


def charged(line: Line) -> Charged:
    return Charged(
        line.kind,
        line.usage_type or "",
        line.plan_tier or "",
        Fraction(line.quantity or 0),
        Fraction(line.amount),
    )


def bill(draft: Draft) -> Bill:
    lines = sorted(charged(line) for line in draft.lines)
    return Bill(lines, Fraction(draft.total), Fraction(draft.credit_carried))


def in_order(bills: Iterable[Bill]) -> list[Bill]:
    return [one._replace(lines=sorted(one.lines)) for one in bills]


def test_a_year_of_invoices_differs_from_the_oracle_by_no_cent(seeds: range) -> None:
    for seed in seeds:
        story = scenario(seed)
        billed, expected = drafts(story), in_order(bills(story))
        assert [bill(one) for one in billed] == expected, f"seed {seed}"
        for one in billed:
            assert sum(line.amount for line in one.lines) == one.total >= 0


def test_no_recorded_quantity_is_missing_from_the_lines_or_on_two(seeds: range) -> None:
    for story in map(scenario, seeds):
        if story["trial_days"] or story["pauses"] or story["cancel_in"] is not None:
            continue
        for plan in story["plans"]:
            for price in plan["prices"]:
                price.pop("units", None)
        on_lines = dict.fromkeys(TYPES, Fraction(0))
        for line in (line for draft in drafts(story) for line in draft.lines):
            if line.usage_type is not None:
                on_lines[line.usage_type] += Fraction(line.quantity or 0)
        recorded = dict.fromkeys(TYPES, Fraction(0))
        for one in story["records"]:
            if one["seen"] < MONTHS:
                scale = 10 ** TYPES[one["usage_type"]]
                recorded[one["usage_type"]] += Fraction(one["units"], scale)
        assert on_lines == recorded, f"seed {story['seed']}"


def test_the_first_subscriptions_have_everything_that_can_be_billed() -> None:
    stories = [scenario(seed) for seed in range(PER_TEST)]
    prices = [price for one in stories for plan in one["plans"] for price in plan["prices"]]
    assert {price["model"] for price in prices} == set(MODELS)
    policies = [price.get("units") for price in prices]
    assert all(policy in policies for policy in POLICIES)
    kinds = {line.kind for one in stories for bill in bills(one) for line in bill.lines}
    assert kinds == {
        "base_fee", "usage", "minimum", "maximum", "proration", "credit", "adjustment",
    }  # fmt: skip
    assert any(one["trial_days"] for one in stories)
    assert any(one["pauses"] for one in stories)
    assert any(one["cancel_in"] is not None for one in stories)
