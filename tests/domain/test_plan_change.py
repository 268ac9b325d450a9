"""A subscription changes its plan, now or when the period ends."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from ledger.domain.period import Span
from ledger.domain.plan_change import change_at_period_end, change_now, default_when
from ledger.domain.subscription import NotAllowed, PendingChange, fall_due
from tests.domain.plans import make_plan
from tests.domain.subscriptions import (
    ADVANCE,
    BASIC,
    END,
    NOW,
    PENDING,
    PRO,
    TRIAL_END,
    YEARLY,
    subscription,
)


def test_an_upgrade_now_is_two_lines_and_the_period_stays() -> None:
    done = change_now(subscription(), BASIC, PRO, 2, now=NOW, paid=ADVANCE)
    assert [(one.kind, one.amount) for one in done.lines] == [
        ("credit", Decimal("-15.00")),
        ("proration", Decimal("150.00")),
    ]
    assert done.advance is not None
    assert (done.advance.amount, done.advance.span) == (Decimal("150.00"), Span(NOW, END))
    assert done.subscription == subscription(plan_tier="pro", plan_version=2)


def test_a_change_within_a_trial_costs_nothing_and_the_trial_goes_on() -> None:
    done = change_now(subscription("trialing"), BASIC, YEARLY, 1, now=NOW, paid=None)
    assert (done.lines, done.advance) == ((), None)
    assert (done.subscription.trial_end, done.subscription.interval) == (TRIAL_END, "year")
    assert done.subscription.anchor == TRIAL_END.date()


@pytest.mark.parametrize(
    ("new", "version"),
    [(BASIC, 1), (make_plan(tier="euro", currency="EUR"), 1)],
)
def test_the_plan_in_force_and_another_currency_are_refused(new: Any, version: int) -> None:
    with pytest.raises(NotAllowed):
        change_now(subscription(), BASIC, new, version, now=NOW, paid=ADVANCE)
    with pytest.raises(NotAllowed):
        change_at_period_end(subscription(), BASIC, new, version, now=NOW)


def test_a_plan_of_another_interval_waits_for_the_periods_end() -> None:
    with pytest.raises(NotAllowed):
        change_now(subscription(), BASIC, YEARLY, 1, now=NOW, paid=ADVANCE)
    assert change_at_period_end(subscription(), BASIC, YEARLY, 1, now=NOW).pending_change


def test_asking_for_the_plan_in_force_takes_back_what_was_pending() -> None:
    one = subscription(pending_change=PENDING)
    assert change_at_period_end(one, BASIC, BASIC, 1, now=NOW) == subscription()
    done = change_now(one, BASIC, BASIC, 1, now=NOW, paid=ADVANCE)
    assert (done.subscription, done.lines) == (subscription(), ())


def test_a_new_version_of_the_same_plan_is_a_change() -> None:
    done = change_now(subscription(), BASIC, BASIC, 2, now=NOW, paid=ADVANCE)
    assert done.subscription.plan_version == 2


@pytest.mark.parametrize(
    ("old", "new", "when"),
    [(BASIC, PRO, "now"), (PRO, BASIC, "period_end"), (BASIC, YEARLY, "period_end"),
     (PRO, PRO, "period_end")],
)  # fmt: skip
def test_an_upgrade_is_wanted_now_and_a_downgrade_at_the_periods_end(
    old: Any, new: Any, when: str
) -> None:
    assert default_when(old, new) == when


def test_years_are_counted_from_the_change_and_months_from_where_they_always_were() -> None:
    february = datetime(2026, 2, 28, tzinfo=UTC)
    pending = PendingChange("yearly", 1, "year", february)
    monthly = subscription(anchor=date(2026, 1, 31), pending_change=pending)
    yearly = fall_due(monthly, february)
    assert (yearly.interval, yearly.anchor) == ("year", february.date())
    assert yearly.period(february).start == february
    back = replace(yearly, anchor=date(2024, 2, 29), pending_change=replace(PENDING, at=february))
    assert fall_due(back, february).anchor == date(2024, 2, 29)
