"""Shares of an amount by time, exact: spans are counted in microseconds, and the shares of an
amount's parts sum to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from itertools import pairwise

import msgspec

from ledger.domain.line import Line, LineKind
from ledger.domain.money import split
from ledger.domain.period import Span
from ledger.domain.plan import Plan


class Advance(msgspec.Struct, frozen=True):
    """What was charged in advance for a span: a base fee, or the share of one after a change."""

    plan_tier: str
    plan_version: int
    amount: Decimal
    span: Span


def base_fee(plan: Plan, version: int, period: Span) -> Advance:
    """A plan version's base fee of a whole period."""
    return Advance(plan.tier, version, Decimal(plan.base_fee), period)


def split_by_time(
    amount: Decimal, span: Span, cuts: Sequence[datetime], currency: str
) -> list[Decimal]:
    """The amount's shares of the parts into which ascending instants cut the span; they sum to it.

    Raises ValueError for instants that do not lie in the span in this order.
    """
    bounds = [span.start, *cuts, span.end]
    weights = [Span(start, end).microseconds for start, end in pairwise(bounds)]
    return split(amount, weights, currency)


def share(amount: Decimal, span: Span, part: Span, currency: str) -> Decimal:
    """The amount's share of a part of its span."""
    return split_by_time(amount, span, [part.start, part.end], currency)[1]


def prorated_change(
    old: Advance | None, new: Advance, at: datetime, currency: str
) -> tuple[list[Line], Advance]:
    """The lines of a plan that takes another's place at an instant of the period, and what is then
    paid for the rest of it.

    `old` is what was last charged in advance for a span that ends with the period (None: nothing
    was), `new` the whole base fee of the whole period. The old plan's unused share is given back
    as a `credit`, the new plan's is charged as a `proration`. What is given back is a share of what
    was charged, so that any number of changes in one period never gives back more than that.
    """
    rest = Span(at, new.span.end)
    amount = share(new.amount, new.span, rest, currency)
    paid = msgspec.structs.replace(new, amount=amount, span=rest)
    lines = [paid_line("proration", paid, "rest of the period")]
    if old is not None:
        unused = share(old.amount, old.span, rest, currency).copy_negate()
        back = msgspec.structs.replace(old, amount=unused, span=rest)
        lines.insert(0, paid_line("credit", back, "unused"))
    return [line for line in lines if line.amount], paid


def paid_line(kind: LineKind, advance: Advance, what: str) -> Line:
    """The line of a base fee or of a share of it."""
    return Line(
        kind=kind,
        description=f"{advance.plan_tier}: {what}",
        amount=advance.amount,
        plan_tier=advance.plan_tier,
        plan_version=advance.plan_version,
        span=advance.span,
    )
