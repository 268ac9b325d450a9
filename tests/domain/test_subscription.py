"""The life of a subscription: every action in every state, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import get_args

import pytest
from msgspec.structs import replace

from ledger.domain.plan_change import change_at_period_end, change_now
from ledger.domain.subscription import (
    Action,
    NotAllowed,
    PendingChange,
    Subscription,
    SubscriptionStatus,
    cancel_at_period_end,
    cancel_now,
    create,
    expire,
    fall_due,
    is_trial,
    paid,
    pause,
    payment_failed,
    reactivate,
    resume,
    uncancel,
)
from tests.domain.plans import make_plan
from tests.domain.subscriptions import (
    ADVANCE,
    BASIC,
    END,
    NOW,
    PENDING,
    PRO,
    TRIAL_END,
    subscription,
)

LIVE = ("trialing", "active", "past_due", "paused")


def to_pro(one: Subscription) -> Subscription:
    return change_now(one, BASIC, PRO, 2, now=NOW, paid=ADVANCE).subscription


ACTIONS: dict[Action, Callable[[Subscription], Subscription]] = {
    "change_now": to_pro,
    "change_at_period_end": lambda one: change_at_period_end(one, BASIC, PRO, 2, now=NOW),
    "cancel_now": lambda one: cancel_now(one, NOW),
    "cancel_at_period_end": lambda one: cancel_at_period_end(one, NOW),
    "uncancel": lambda one: uncancel(replace(one, cancel_at=END), NOW),
    "pause": lambda one: pause(one, NOW),
    "resume": lambda one: resume(one, BASIC, now=NOW, paid=ADVANCE).subscription,
    "reactivate": lambda one: reactivate(one, NOW),
    "expire": lambda one: expire(one, NOW),
    "payment_failed": lambda one: payment_failed(one, NOW),
    "paid": lambda one: paid(one, NOW),
}

# What each state becomes; what is not here is refused.
BECOMES: dict[Action, dict[str, str]] = {
    "change_now": {"trialing": "trialing", "active": "active"},
    "change_at_period_end": {
        "trialing": "trialing", "active": "active", "past_due": "past_due",
    },
    "cancel_now": dict.fromkeys(LIVE, "canceled"),
    "cancel_at_period_end": {one: one for one in LIVE},
    "uncancel": {one: one for one in LIVE},
    "pause": {"active": "paused"},
    "resume": {"paused": "active"},
    "reactivate": {"canceled": "active", "expired": "active"},
    "expire": {"past_due": "expired"},
    "payment_failed": {"active": "past_due"},
    "paid": {"past_due": "active"},
}  # fmt: skip


@pytest.mark.parametrize("action", get_args(Action))
@pytest.mark.parametrize("status", get_args(SubscriptionStatus))
def test_an_action_leads_to_its_state_or_is_refused(
    status: SubscriptionStatus, action: Action
) -> None:
    expected = BECOMES[action].get(status)
    if expected is None:
        with pytest.raises(NotAllowed, match=f"{action} is not possible while .* is {status}"):
            ACTIONS[action](subscription(status))
    else:
        assert ACTIONS[action](subscription(status)).status == expected


# What an action does to (cancel_at, pending_change) of an active subscription with these; None: it
# is refused.
Left = tuple[datetime | None, PendingChange | None]
LEAVES: list[tuple[Action, SubscriptionStatus, Left, Left | None]] = [
    ("change_now", "active", (None, PENDING), (None, None)),
    ("change_now", "active", (END, None), None),
    ("change_at_period_end", "active", (None, None), (None, PENDING)),
    ("change_at_period_end", "active", (END, None), None),
    ("change_at_period_end", "trialing", (None, None), (None, replace(PENDING, at=TRIAL_END))),
    ("cancel_now", "active", (END, None), (NOW, None)),
    ("cancel_now", "active", (None, PENDING), (NOW, None)),
    ("cancel_at_period_end", "active", (None, PENDING), (END, None)),
    ("cancel_at_period_end", "active", (END, None), None),
    ("cancel_at_period_end", "trialing", (None, None), (TRIAL_END, None)),
    ("pause", "active", (END, None), (END, None)),
    ("pause", "active", (None, PENDING), (None, PENDING)),
    ("resume", "paused", (None, PENDING), (None, PENDING)),
    ("reactivate", "canceled", (NOW, None), (None, None)),
    ("expire", "past_due", (END, None), (None, None)),
    ("payment_failed", "active", (END, None), (END, None)),
    ("paid", "past_due", (None, PENDING), (None, PENDING)),
]


@pytest.mark.parametrize(("action", "status", "before", "after"), LEAVES)
def test_an_action_leaves_behind(
    action: Action, status: SubscriptionStatus, before: Left, after: Left | None
) -> None:
    one = subscription(status, cancel_at=before[0], pending_change=before[1])
    if after is None:
        with pytest.raises(NotAllowed):
            ACTIONS[action](one)
    else:
        changed = ACTIONS[action](one)
        assert (changed.cancel_at, changed.pending_change) == after


def test_a_trial_of_several_periods_is_cancelled_at_its_end() -> None:
    trying = create(PRO, 2, start=NOW, now=NOW, trial_days=75)
    assert trying.trial_end is not None
    assert trying.period(NOW).end < trying.trial_end
    assert cancel_at_period_end(trying, NOW).cancel_at == trying.trial_end


def test_nothing_to_take_back_is_a_conflict() -> None:
    with pytest.raises(NotAllowed):
        uncancel(subscription(), NOW)


def test_a_subscription_without_trial_is_active_from_the_first_moment_of_its_day() -> None:
    start = datetime(2026, 4, 16, 3, tzinfo=UTC)  # the 15th in New York
    one = create(PRO, 2, start=start, now=start, timezone="America/New_York")
    assert one == Subscription("active", "pro", 2, "month", date(2026, 4, 15), "America/New_York")
    assert one.period(start).start == datetime(2026, 4, 15, 4, tzinfo=UTC)


def test_a_trial_ends_where_its_first_paid_period_begins() -> None:
    one = create(PRO, 2, start=NOW + timedelta(hours=15), now=END, trial_days=30)
    assert (one.status, one.anchor) == ("trialing", date(2026, 5, 16))
    assert one.trial_end is not None
    assert one.period(one.trial_end).start == one.trial_end
    assert is_trial(one.trial_end, one.period(NOW))
    assert not is_trial(one.trial_end, one.period(one.trial_end))


def test_the_plans_trial_is_the_default_and_one_in_the_past_is_over() -> None:
    plan = make_plan(trial_days=14)
    assert create(plan, 1, start=NOW, now=NOW).status == "trialing"
    assert create(plan, 1, start=NOW, now=NOW, trial_days=0).trial_end is None
    assert create(plan, 1, start=NOW, now=NOW + timedelta(days=14)).status == "active"


def test_a_start_in_the_future_is_refused() -> None:
    with pytest.raises(NotAllowed):
        create(PRO, 1, start=END, now=NOW)


def test_a_start_of_a_mistyped_year_is_refused() -> None:
    assert create(PRO, 1, start=NOW, now=NOW + timedelta(days=366)).status == "active"
    with pytest.raises(NotAllowed):
        create(PRO, 1, start=NOW, now=NOW + timedelta(days=366, seconds=1))


def test_who_resumes_in_a_period_that_began_paused_pays_the_rest_of_it() -> None:
    assert resume(subscription("paused"), BASIC, now=NOW, paid=ADVANCE).lines == ()
    done = resume(subscription("paused"), BASIC, now=NOW, paid=None)
    assert [(one.kind, one.amount) for one in done.lines] == [("proration", Decimal("15.00"))]
    assert done.advance is not None


def test_who_comes_back_begins_new_periods_today_without_a_trial() -> None:
    gone = subscription("canceled", cancel_at=NOW, trial_end=NOW, timezone="America/New_York")
    back = reactivate(gone, NOW)
    assert back.period(NOW).billing_date == back.anchor == date(2026, 4, 15)
    assert (back.status, back.trial_end, back.cancel_at) == ("active", None, None)


def test_what_is_set_for_an_instant_falls_due_at_it_and_not_before() -> None:
    moment = timedelta(microseconds=1)
    changing, ending = subscription(pending_change=PENDING), subscription(cancel_at=END)
    trying = subscription("trialing")
    for one, at in ((changing, END), (ending, END), (trying, TRIAL_END)):
        assert fall_due(one, at - moment) == one
        assert fall_due(one, at) != one
        assert fall_due(fall_due(one, at), at) == fall_due(one, at)
    assert fall_due(changing, END) == subscription(plan_tier="pro", plan_version=2)
    assert fall_due(ending, END) == subscription("canceled", cancel_at=END)
    assert fall_due(trying, TRIAL_END) == replace(trying, status="active")


def test_a_trial_that_ends_with_a_change_becomes_active_on_the_new_plan() -> None:
    one = subscription("trialing", pending_change=replace(PENDING, at=TRIAL_END))
    due = fall_due(one, TRIAL_END)
    assert (due.status, due.plan_tier) == ("active", "pro")


@pytest.mark.parametrize("status", ["past_due", "paused"])
def test_who_is_paused_or_owes_is_changed_and_cancelled_all_the_same(
    status: SubscriptionStatus,
) -> None:
    assert fall_due(subscription(status, cancel_at=END), END).status == "canceled"
    due = fall_due(subscription(status, pending_change=PENDING), END)
    assert (due.status, due.plan_tier) == (status, "pro")


@pytest.mark.parametrize("status", ["canceled", "expired"])
def test_nothing_falls_due_after_the_end(status: SubscriptionStatus) -> None:
    one = subscription(status, cancel_at=NOW, pending_change=PENDING)
    assert fall_due(one, END) == one


def test_an_action_on_a_subscription_with_something_due_is_a_mistake_of_the_caller() -> None:
    for action in ACTIONS.values():
        with pytest.raises(ValueError, match="due"):
            action(subscription("trialing", trial_end=NOW))
