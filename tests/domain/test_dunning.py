"""The steps of an invoice that is not paid, and what they make of its subscription."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from ledger.domain.dunning import SCHEDULE, SHORTEST, Owed, Step, blocks, due_action, schedule
from ledger.domain.payment import InvoiceStatus, Seen, judge
from ledger.domain.subscription import ALLOWED, SubscriptionStatus

START = datetime(2026, 11, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def looked_at(*hours: int) -> Owed:
    """Owed since the start, as it stands after looks at these hours."""
    owed: Owed | None = None
    for one in hours:
        owed = schedule(START + one * HOUR, START, owed)
    assert owed is not None
    return owed


@pytest.mark.parametrize(
    ("day", "step", "next_day"),
    [
        (0, "owed", 7),
        (6, "owed", 7),
        (7, "blocked", 14),
        (13, "blocked", 14),
        (14, "given_up", None),
    ],
)
def test_looked_at_every_day_each_step_comes_on_its_day(
    day: int, step: Step, next_day: int | None
) -> None:
    found = looked_at(*range(0, day * 24 + 1, 24))
    assert found.step == step
    assert found.next_at == (None if next_day is None else START + next_day * DAY)


def test_a_step_is_not_taken_a_moment_early() -> None:
    owed = looked_at(0)
    assert owed.next_at is not None
    assert schedule(owed.next_at - timedelta(microseconds=1), START, owed) == owed


def test_after_an_outage_no_step_is_skipped_and_each_is_in_force_for_a_day() -> None:
    late = 40 * 24
    assert looked_at(late).step == "owed"
    assert looked_at(late).next_at == START + late * HOUR + SHORTEST
    assert looked_at(late, late + 23).step == "owed"
    assert looked_at(late, late + 24).step == "blocked"
    assert looked_at(late, late + 24, late + 25).step == "blocked"
    assert looked_at(late, late + 24, late + 48).step == "given_up"


def test_an_earlier_failure_that_is_told_later_counts() -> None:
    owed = schedule(START + 3 * DAY, START + 3 * DAY, None)
    assert schedule(START + 4 * DAY, START, owed).next_at == START + 7 * DAY
    assert schedule(START + 4 * DAY, START + 4 * DAY, owed).owed_since == START + 3 * DAY


def test_the_last_step_is_the_last() -> None:
    last = looked_at(*range(0, 15 * 24, 24))
    assert schedule(START + 100 * DAY, START, last) == last
    assert [step for _, step in SCHEDULE] == ["owed", "blocked", "given_up"]


@pytest.mark.parametrize(
    ("steps", "blocked"), [([], False), (["owed"], False), (["owed", "blocked"], True)]
)
def test_access_goes_by_the_worst(steps: list[Step], blocked: bool) -> None:
    assert blocks(steps) is blocked


@pytest.mark.parametrize(
    ("status", "owed", "gave_up", "action"),
    [
        ("active", [], False, None),
        ("active", ["owed"], False, "payment_failed"),
        ("past_due", ["owed"], False, None),
        ("past_due", [], False, "paid"),
        ("past_due", [], True, "expire"),
        ("past_due", ["owed"], True, "expire"),
        ("paused", ["blocked"], False, None),
        ("trialing", ["owed"], False, None),
        ("canceled", ["owed"], True, None),
        ("expired", [], False, None),
    ],
)
def test_what_a_subscription_comes_to(
    status: SubscriptionStatus, owed: list[Step], gave_up: bool, action: str | None
) -> None:
    found = due_action(status, owed, gave_up=gave_up)
    assert found == action
    assert found is None or status in ALLOWED[found]


TOTAL, NOTHING = Decimal("499.00"), Decimal(0)


@pytest.mark.parametrize(
    ("ours", "theirs", "becomes"),
    [
        ("open", "open", "open"),
        ("open", "draft", "open"),
        ("open", "paid", "paid"),
        ("open", "void", "void"),
        ("open", "uncollectible", "uncollectible"),
        ("uncollectible", "open", "uncollectible"),
        ("uncollectible", "paid", "paid"),
        ("paid", "open", "paid"),
        ("void", "open", "void"),
        ("void", "void", "void"),
    ],
)
def test_what_an_invoice_becomes(ours: InvoiceStatus, theirs: str, becomes: str) -> None:
    verdict = judge(ours, TOTAL, NOTHING, Seen(theirs, TOTAL, NOTHING))
    assert (verdict.status, verdict.contradiction) == (becomes, None)


@pytest.mark.parametrize(
    ("ours", "theirs", "total"),
    [
        ("void", "paid", TOTAL),
        ("paid", "void", TOTAL),
        ("draft", "paid", TOTAL),
        ("open", "paid", NOTHING),
    ],
)
def test_a_contradiction_changes_nothing(ours: InvoiceStatus, theirs: str, total: Decimal) -> None:
    verdict = judge(ours, TOTAL, NOTHING, Seen(theirs, total, TOTAL))
    assert verdict.contradiction
    assert (verdict.status, verdict.amount_paid) == (ours, NOTHING)


def test_what_was_paid_is_never_less_than_it_was() -> None:
    part = judge("open", TOTAL, NOTHING, Seen("open", TOTAL, Decimal("100.00")))
    assert part.amount_paid == Decimal("100.00")
    overtaken = judge("open", TOTAL, part.amount_paid, Seen("open", TOTAL, NOTHING))
    assert overtaken.amount_paid == Decimal("100.00")
