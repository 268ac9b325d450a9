"""Every example of docs/rating.md is what the product makes of it."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from ledger.domain.invoice import Late, PlanInForce, draft
from ledger.domain.line import Line
from ledger.domain.money import amount_text
from ledger.domain.period import Span
from ledger.domain.plan import Model, Plan, Policy, Price, UnitPolicy
from ledger.domain.proration import Advance, prorated_change
from ledger.domain.rating import plain, rate
from ledger.domain.unit_policy import Measured, billable

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "rating.md").read_text()
EXAMPLES = [msgspec.json.decode(one) for one in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]
UNITS = re.findall(
    r"^\| (?:`(\w+)`(?:, size (\d+))?)?.*\| ([\d. +]+) \| ([\d., ]+) \|$", TEXT, re.M
)
MARCH = Span(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))


def shown(line: Line, names: list[str]) -> dict[str, Any]:
    """The line as the document shows it."""
    texts = {
        "kind": line.kind,
        "quantity": None if line.quantity is None else plain(line.quantity),
        "unit_amount": None if line.unit_amount is None else plain(line.unit_amount),
        "amount": amount_text(line.amount, "USD"),
        "description": line.description,
    }
    return {name: texts[name] for name in names}


def made(example: dict[str, Any]) -> list[Line]:
    if "used" in example:
        price = msgspec.convert(example["price"], Price)
        return rate(price, Decimal(example["used"]), "USD")
    if "billed" in example:
        plan = Plan("pro", "Pro", "USD", "month", "0", 0, False, (), ())
        price = msgspec.convert(example["price"], Price)
        terms = PlanInForce(msgspec.structs.replace(plan, prices=(price,)), 1, MARCH, (MARCH,))
        late = Late(terms, price.usage_type, Decimal(example["billed"]), Decimal(example["now"]))
        return list(draft("USD", late=[late]).lines)
    period = msgspec.convert(dict(zip(("start", "end"), example["period"], strict=True)), Span)
    old = Advance("old", 1, Decimal(example["old_fee"]), period)
    new = Advance("new", 1, Decimal(example["new_fee"]), period)
    return prorated_change(old, new, datetime.fromisoformat(example["at"]), "USD")[0]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_rating_has_the_lines_it_shows(example: dict[str, Any]) -> None:
    lines = made(example)
    assert [
        shown(line, list(told)) for line, told in zip(lines, example["lines"], strict=True)
    ] == example["lines"]


def test_an_example_of_units_has_the_units_it_shows() -> None:
    policy = UnitPolicy(policy="exact")
    for name, size, minutes, units in UNITS:
        if name:
            policy = msgspec.convert({"policy": name, "size": size or None}, UnitPolicy)
        measured = [
            Measured("u", date(2026, 3, 1), str(number), Decimal(one))
            for number, one in enumerate(minutes.split(" + "))
        ]
        assert [plain(one.quantity) for one in billable(policy, measured)] == units.split(", ")


def test_every_model_and_every_policy_has_an_example() -> None:
    assert {one["price"]["model"] for one in EXAMPLES if "used" in one} == set(get_args(Model))
    assert {name for name, *_ in UNITS if name} == set(get_args(Policy))
