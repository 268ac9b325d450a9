"""The base fees of a period, as they were charged, from the history."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from msgspec.structs import replace

from ledger.domain.fees import fees
from ledger.domain.in_force import Stand
from ledger.domain.period import period_at
from ledger.domain.plan import Plan

PLANS = {
    ("small", 1): Plan("small", "Small", "USD", "month", "30.00", 0, False, (), ()),
    ("large", 1): Plan("large", "Large", "USD", "month", "300.00", 0, False, (), ()),
}


def at(day: int, hour: int = 0, month: int = 6) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


ACTIVE = Stand(at(1, 9), "active", "small", 1, date(2026, 6, 1), "UTC", None)


def charged(*history: Stand, on: datetime = ACTIVE.since, of: Stand | None = None) -> list[str]:
    of = of or history[0]
    period = period_at(on, of.anchor, "month", "UTC")
    return [f"{line.kind} {line.amount:.2f}" for line in fees(history, period, of, PLANS)]


@pytest.mark.parametrize(
    ("history", "lines"),
    [
        ([ACTIVE], ["base_fee 30.00"]),
        ([replace(ACTIVE, status="trialing")], []),
        (
            [ACTIVE, replace(ACTIVE, since=at(16), plan_tier="large")],
            ["base_fee 30.00", "credit -15.00", "proration 150.00"],
        ),
        ([ACTIVE, replace(ACTIVE, since=at(16), status="canceled")], ["base_fee 30.00"]),
        (
            [
                ACTIVE,
                replace(ACTIVE, since=at(10), status="paused"),
                replace(ACTIVE, since=at(16)),
            ],
            ["base_fee 30.00"],
        ),
        ([ACTIVE, replace(ACTIVE, since=at(10), status="past_due")], ["base_fee 30.00"]),
    ],
)
def test_a_first_period_is_charged_whole_and_its_changes_by_time(
    history: list[Stand], lines: list[str]
) -> None:
    assert charged(*history) == lines


def test_a_period_that_begins_paused_is_charged_from_where_it_goes_on() -> None:
    paused = replace(ACTIVE, since=at(20), status="paused")
    again = replace(ACTIVE, since=at(16, month=7))
    assert charged(ACTIVE, paused, on=at(1, month=7)) == []
    july = charged(ACTIVE, paused, again, on=at(1, month=7))
    assert july == ["proration 15.48"]  # 16 of 31 days


def test_one_that_begins_anew_on_a_day_is_charged_once_for_its_new_period() -> None:
    """The period that stood in its middle then was charged before."""
    ended = replace(ACTIVE, since=at(15, 10), status="canceled")
    anew = replace(ACTIVE, since=at(15, 11), anchor=date(2026, 6, 15))
    assert charged(ACTIVE, ended, anew, on=at(15), of=anew) == ["base_fee 30.00"]


def test_two_beginnings_on_one_day_are_two_fees() -> None:
    ended = replace(ACTIVE, since=at(1, 10), status="canceled")
    anew = replace(ACTIVE, since=at(1, 11))
    assert charged(ACTIVE, ended, anew, of=anew) == ["base_fee 30.00", "base_fee 30.00"]
