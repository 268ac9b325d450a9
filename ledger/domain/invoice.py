"""One invoice of a subscription: usage of the period that ended, base fee of the one that begins.

**When the plan changed within the period** usage is rated by the plan version it was admitted
under, in lines of its own. What is owed without any use (base fee, minimum) is shared by time;
what follows use (included units, tiers, packages, maximum) applies whole to each version's usage.

**Usage that comes late** for a period that was invoiced, and corrections, are adjustment lines:
what that period's usage type costs now, less what it cost as billed, both by its own plan version;
so tiers and bounds stay right.

**Nothing is netted silently.** Credit from earlier invoices and credit that is carried forward are
lines too: all lines sum to the total, which is never negative. Where nothing else is charged or
given, credit just waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

import msgspec

from ledger.domain.line import Line
from ledger.domain.money import exact, split
from ledger.domain.period import Span
from ledger.domain.plan import Plan, Price
from ledger.domain.proration import Advance, paid_line
from ledger.domain.rating import plain, rate


class PlanInForce(msgspec.Struct, frozen=True):
    """A plan version that usage of a period was admitted under, and when it was in force in it:
    time in which the subscription was paused or had ended is left out."""

    plan: Plan
    version: int
    period: Span
    in_force: tuple[Span, ...]
    trial: bool = False  # the period is free: nothing used in it is priced

    def price(self, usage_type: str) -> Price | None:
        """The price of this period: its minimum is the share of the time in force."""
        for price in self.plan.prices:
            if price.usage_type == usage_type:
                return _with_shared_minimum(price, self)
        return None


class Used(msgspec.Struct, frozen=True):
    """Billable quantity by usage type under one plan version (`unit_policy` is applied)."""

    terms: PlanInForce
    quantities: Mapping[str, Decimal]


class Voided(msgspec.Struct, frozen=True):
    """Amounts of the invoices of one usage: on those that were voided, and on the others."""

    written_off: Decimal
    standing: Decimal


class Late(msgspec.Struct, frozen=True):
    """Billable quantity of a period that was invoiced: as it was billed, adjustments included,
    and as it is now. `voided` when one of its invoices was."""

    terms: PlanInForce
    usage_type: str
    billed: Decimal
    now: Decimal
    voided: Voided | None = None


class Draft(msgspec.Struct, frozen=True):
    """What an invoice will say. `subtotal` is before credit of earlier invoices; `total` is what
    is to be paid, the sum of all lines; `credit_carried` is what the next invoice starts with."""

    currency: str
    lines: tuple[Line, ...]
    subtotal: Decimal
    total: Decimal
    credit_carried: Decimal

    @property
    def is_issued(self) -> bool:
        """Whether it gets a number and is sent. One whose lines are all 0 is kept, because its
        lines account for the usage, but nobody is sent an invoice over nothing. One that comes to
        0 by credit is issued."""
        return any(line.amount for line in self.lines)


def draft(
    currency: str,
    used: Sequence[Used] = (),
    *,
    prorations: Iterable[Line] = (),
    late: Sequence[Late] = (),
    advance: Advance | None = None,
    credit: Decimal = Decimal(0),
) -> Draft:
    """The invoice at a period's end, or at a subscription's beginning (nothing used yet).

    `used` is of the period that ended, by plan version in the order they came into force; one that
    was in force without usage is in it for its minimums. `prorations` are the lines of changes
    within the period. `advance` is the next period's base fee; None when the subscription ends or
    is paused, or a trial goes on. `credit` (>= 0) was carried from earlier invoices.
    Raises ValueError for plans of another currency.
    """
    terms = [one.terms for one in used] + [one.terms for one in late]
    if any(one.plan.currency != currency for one in terms):
        raise ValueError("an invoice has one currency")
    with exact():
        lines = [paid_line("base_fee", advance, "base fee")] if advance else []
        lines += prorations
        for one in used:
            lines += _usage(one)
        lines += [line for one in late for line in _adjustment(one)]
        subtotal = _sum(lines)
        if any(line.amount for line in lines):
            lines += _credits(subtotal, credit)
        return Draft(
            currency,
            tuple(lines),
            subtotal,
            total=_sum(lines),
            credit_carried=max(credit - subtotal, Decimal(0)),
        )


def _usage(used: Used) -> Iterator[Line]:
    terms = used.terms
    if terms.trial:
        return
    quantities = dict(used.quantities)
    for price in terms.plan.prices:
        yield from _rated(terms, price.usage_type, quantities.pop(price.usage_type, Decimal(0)))
    for usage_type, quantity in sorted(quantities.items()):
        yield from _rated(terms, usage_type, quantity)


def _rated(terms: PlanInForce, usage_type: str, quantity: Decimal) -> Iterator[Line]:
    price = terms.price(usage_type)
    if price is None:
        lines = [_unpriced(usage_type, quantity)] if quantity else []
    else:
        lines = rate(price, quantity, terms.plan.currency)
    for line in lines:
        yield _under(terms, line)


def _unpriced(usage_type: str, quantity: Decimal) -> Line:
    """Usage that the plan does not price costs nothing, and is shown all the same: the quantities
    of all lines sum to what was used."""
    return Line(
        kind="usage",
        usage_type=usage_type,
        description=f"{usage_type}: not priced by the plan",
        quantity=quantity,
        amount=Decimal(0),
    )


def _adjustment(late: Late) -> Iterator[Line]:
    if late.terms.trial:
        return
    now = _sum(_rated(late.terms, late.usage_type, late.now))
    if late.voided is None:
        was = _sum(_rated(late.terms, late.usage_type, late.billed))
    else:  # what was written off is neither charged again nor given back
        now, was = max(now - late.voided.written_off, Decimal(0)), late.voided.standing
    # Records that change nothing are on a line all the same: every record is on one.
    instead = "as before" if late.now == late.billed else f"instead of {plain(late.billed)}"
    line = Line(
        kind="adjustment",
        usage_type=late.usage_type,
        description=f"{late.usage_type}: {plain(late.now)} {instead}",
        quantity=late.now - late.billed,
        amount=now - was,
    )
    yield _under(late.terms, line)


def _credits(subtotal: Decimal, credit: Decimal) -> Iterator[Line]:
    if credit:
        yield Line(kind="credit", description="credit of earlier invoices", amount=-credit)
    if subtotal < credit:
        yield Line(
            kind="credit", description="carried to the next invoice", amount=credit - subtotal
        )


def _with_shared_minimum(price: Price, terms: PlanInForce) -> Price:
    if price.minimum_amount is None:
        return price
    time = sum(span.microseconds for span in terms.in_force)
    weights = [time, terms.period.microseconds - time]
    shared = split(Decimal(price.minimum_amount), weights, terms.plan.currency)[0]
    return msgspec.structs.replace(price, minimum_amount=f"{shared:f}")


def _under(terms: PlanInForce, line: Line) -> Line:
    return msgspec.structs.replace(
        line, plan_tier=terms.plan.tier, plan_version=terms.version, span=terms.period
    )


def _sum(lines: Iterable[Line]) -> Decimal:
    return sum((line.amount for line in lines), Decimal(0))
