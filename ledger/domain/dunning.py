"""What happens while an invoice is not paid, step by step. Pure.

An invoice is owed since a payment of it failed, or since it was due. Paid at any step, it is over
at once. Of several that are owed each has its own steps; access goes by the worst.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from ledger.domain.subscription import SubscriptionStatus

Step = Literal["owed", "blocked", "given_up"]

# Since when each is in force. owed: the subscription is past_due, and works. blocked: its usage is
# answered 403. given_up: the invoice is uncollectible, and the subscription expires.
SCHEDULE: tuple[tuple[timedelta, Step], ...] = (
    (timedelta(0), "owed"),
    (timedelta(days=7), "blocked"),
    (timedelta(days=14), "given_up"),
)


# After an outage no step is skipped, and each is in force for so long: nobody loses access, or the
# subscription, from one minute to the next.
SHORTEST = timedelta(days=1)


class Owed(msgspec.Struct, frozen=True):
    """Since when an invoice is owed, and the step that was last taken."""

    owed_since: datetime
    step: Step
    step_since: datetime

    @property
    def next_at(self) -> datetime | None:
        """When the next step is due; None after the last."""
        index = _index(self.step) + 1
        if index == len(SCHEDULE):
            return None
        return max(self.owed_since + SCHEDULE[index][0], self.step_since + SHORTEST)


def schedule(now: datetime, owed_since: datetime, owed: Owed | None) -> Owed:
    """Where an invoice stands that is owed since an instant; `owed` as it stood before."""
    if owed is None:
        return Owed(owed_since, SCHEDULE[0][1], now)
    earlier = msgspec.structs.replace(owed, owed_since=min(owed_since, owed.owed_since))
    if earlier.next_at is None or now < earlier.next_at:
        return earlier
    return Owed(earlier.owed_since, SCHEDULE[_index(earlier.step) + 1][1], now)


def _index(step: Step) -> int:
    return [one for _, one in SCHEDULE].index(step)


def blocks(steps: Collection[Step]) -> bool:
    """Whether usage is refused while these are owed."""
    return "blocked" in steps


def due_action(
    status: SubscriptionStatus, owed: Collection[Step], *, gave_up: bool
) -> Literal["payment_failed", "paid", "expire"] | None:
    """What a subscription comes to whose open invoices stand at these steps, when one was just
    given up or not. One that is paused, on trial or ended stays what it is."""
    if status == "past_due" and gave_up:
        return "expire"
    if status == "past_due" and not owed:
        return "paid"
    if status == "active" and owed:
        return "payment_failed"
    return None
