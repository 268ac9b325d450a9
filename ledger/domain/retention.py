"""How long records are kept, and who may look at the books. Pure: all days are UTC.

A record is kept for whole months: its years are counted from the end of the month in which it was
recorded or its last invoice was issued, whichever is later. So nothing is kept for less long than
its class says, and a month is kept as long as anybody in it needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Literal
from uuid import UUID

import msgspec

from ledger.domain.organization import RETENTION_YEARS, RetentionClass

Reason = Literal["retained", "legal_hold", "access_to_books", "unsettled"]

# 42 CFR 420.300-304: who sold that much to a provider within 12 months lets HHS see the books of it
# until four years after the services.
BOOKS_AMOUNT, BOOKS_CURRENCY = Decimal("10000.00"), "USD"
BOOKS_WINDOW_YEARS, BOOKS_YEARS = 1, 4


class Keeper(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps an organisation's records of a month; of nobody's, None. `last_issued`: when the
    last invoice about any of them was. `unsettled`: some are on no issued invoice yet."""

    organization_id: UUID | None
    records: int
    retention_class: RetentionClass = "standard"
    legal_hold: bool = False
    last_issued: date | None = None
    unsettled: bool = False
    books_until: date | None = None


class Refusal(msgspec.Struct, frozen=True):
    """Why a month stays. `possible_on`: the first day that this is no reason any more, None when
    that is not a matter of time."""

    month: date
    organization_id: UUID | None
    reason: Reason
    possible_on: date | None


class Billed(msgspec.Struct, frozen=True):
    """What was billed, without tax, for services that ended on a day."""

    until: date
    amount: Decimal


def month_after(month: date) -> date:
    """The first day after the month that a day is in."""
    return (month.replace(day=1) + timedelta(days=31)).replace(day=1)


def years_after(day: date, years: int) -> date:
    """The same day in another year; 1 March for a 29 February that there is not."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return date(day.year + years, 3, 1)


def kept_until(month: date, last_issued: date | None, retention_class: RetentionClass) -> date:
    """The first day on which records of a month need not be kept any more."""
    end = month_after(month if last_issued is None else max(month, last_issued))
    return years_after(end, RETENTION_YEARS[retention_class])


def refusals(month: date, keepers: Sequence[Keeper], today: date) -> list[Refusal]:
    """Everything that keeps a month; nothing when it may be purged. One without records is no
    month that is over yet, or kept as any other."""
    everybody = keepers or [Keeper(organization_id=None, records=0)]
    return [found for one in everybody for found in _of(month, one, today)]


def _of(month: date, one: Keeper, today: date) -> list[Refusal]:
    found: list[Refusal] = []
    if one.legal_hold:
        found.append(Refusal(month, one.organization_id, "legal_hold", None))
    if one.unsettled:
        found.append(Refusal(month, one.organization_id, "unsettled", None))
    if today < (end := kept_until(month, one.last_issued, one.retention_class)):
        found.append(Refusal(month, one.organization_id, "retained", end))
    if one.books_until is not None and today <= one.books_until:
        after = one.books_until + timedelta(days=1)
        found.append(Refusal(month, one.organization_id, "access_to_books", after))
    return found


def access_to_books_until(billed: Sequence[Billed]) -> date | None:
    """The last day on which the books must be open: four years after the end of the last services
    with which twelve months came to the amount. None where they never did."""
    last = None
    for one in billed:
        since = years_after(one.until, -BOOKS_WINDOW_YEARS)
        total = sum(
            (other.amount for other in billed if since < other.until <= one.until), Decimal(0)
        )
        if total >= BOOKS_AMOUNT and (last is None or one.until > last):
            last = one.until
    return None if last is None else years_after(last, BOOKS_YEARS)
