"""What comparing with Stripe says: for finance, and for machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec

from ledger.domain.money import amount_text, exact, is_whole
from ledger.domain.stripe_compare import OurInvoice
from ledger.reconcile.findings import Report, merged
from ledger.reconcile.findings import text as invariants_text
from ledger.store.stripe_reconcile import Kind

Wait = Literal["waiting", "told", "just happened", "parked", "skipped"]

MEANINGS: Mapping[Kind, str] = {
    "missing": "delivered, and not in Stripe",
    "extra": "in Stripe with an id or a number of ours, and not ours",
    "different": "not the same on both sides",
    "missed": "told by Stripe, and never received here",
}
WAITS: Mapping[Wait, str] = {
    "waiting": "to be sent; the ledger does so by itself",
    "told": "Stripe has told of it; seen to within seconds",
    "just happened": "Stripe is about to tell of it",
    "parked": "for a person: ./run stripe parked",
    "skipped": "a person has let them be: not compared",
}
COMPARED = ("invoices", "lines", "customers", "events")
MOST = 100  # of a kind that are told one by one; all are counted


class Disagreement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`what` does not agree: a field, an object or the type of an event. Amounts in the invoice's
    currency."""

    kind: Kind
    what: str
    number: str | None = None
    invoice_id: UUID | None = None
    stripe_id: str | None = None
    ours: str | None = None
    theirs: str | None = None

    def line(self) -> str:
        ids = f"{self.number or '-'} ({self.invoice_id or '-'}, {self.stripe_id or '-'})"
        return f"{ids}: {self.what}: here {self.ours or '-'}, Stripe {self.theirs or '-'}"


class OnItsWay(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An invoice that need not be in Stripe as it is here, yet or at all; issued so long ago."""

    state: Wait
    number: str | None
    invoice_id: UUID
    total: str
    currency: str
    age_s: int
    call_id: int | None = None


class Total(msgspec.Struct):
    """Of one currency. `usage`: lines that stand for usage; `lines`, `ours`: all lines and all
    totals of what is to be in Stripe; `theirs`: all that is there. The others are apart."""

    invoices: int = 0
    usage: Decimal = Decimal(0)
    lines: Decimal = Decimal(0)
    ours: Decimal = Decimal(0)
    theirs: Decimal = Decimal(0)
    waiting: Decimal = Decimal(0)
    parked: Decimal = Decimal(0)
    skipped: Decimal = Decimal(0)

    def texts(self, currency: str) -> dict[str, str]:
        with exact():
            amounts = {
                "usage": self.usage, "lines": self.lines, "invoices": self.ours,
                "stripe": self.theirs, "difference": self.theirs - self.ours,
                "waiting": self.waiting, "parked": self.parked, "skipped": self.skipped,
            }  # fmt: skip
        return {name: _money(one, currency) for name, one in amounts.items()}


class StripeReport(msgspec.Struct, kw_only=True):
    """`until` None: until now. `ledger`: invoices beside usage (I6, I7). `not_compared`: what
    Stripe did not say, and why."""

    since: datetime
    until: datetime | None
    compared: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(COMPARED, 0))
    counts: dict[Kind, int] = msgspec.field(default_factory=lambda: dict.fromkeys(MEANINGS, 0))
    waits: dict[Wait, int] = msgspec.field(default_factory=lambda: dict.fromkeys(WAITS, 0))
    totals: dict[str, Total] = {}
    findings: list[Disagreement] = []
    on_their_way: list[OnItsWay] = []
    ledger: Report = msgspec.field(default_factory=lambda: merged([]))
    not_compared: list[str] = []

    @property
    def disagrees(self) -> bool:
        return any(self.counts.values()) or bool(self.ledger.findings)

    def found(self, one: Disagreement) -> None:
        self.counts[one.kind] += 1
        if self.counts[one.kind] <= MOST:
            self.findings.append(one)

    def total(self, currency: str) -> Total:
        return self.totals.setdefault(currency, Total())

    def waits_for(self, state: Wait, one: OurInvoice, now: datetime) -> None:
        self.waits[state] += 1
        if self.waits[state] <= MOST:
            age = max(now - (one.issued_at or now), timedelta(0))
            self.on_their_way.append(
                OnItsWay(
                    state=state,
                    number=one.number,
                    invoice_id=one.invoice_id,
                    total=_money(one.total, one.currency),
                    currency=one.currency,
                    age_s=age // timedelta(seconds=1),
                    call_id=one.parked_call if state == "parked" else None,
                )
            )


def _money(amount: Decimal, currency: str) -> str:
    """Somebody may have made an invoice over a part of a minor unit in Stripe."""
    return amount_text(amount, currency) if is_whole(amount, currency) else f"{amount:f}"


def as_json(report: StripeReport) -> bytes:
    said: dict[str, Any] = {
        "from": report.since,
        "to": report.until,
        "compared": {**report.compared, **report.ledger.compared},
        "totals": [
            {"currency": currency, "count": one.invoices, **one.texts(currency)}
            for currency, one in sorted(report.totals.items())
        ],
        "counts": report.counts,
        "findings": report.findings,
        "waits": report.waits,
        "on_their_way": report.on_their_way,
        "ledger": report.ledger.findings,
        "not_compared": report.not_compared,
    }
    return msgspec.json.encode(said)


def text(report: StripeReport) -> str:
    """For people: totals by currency, what does not agree, and what is on its way."""
    return "\n".join(_lines(report))


_ROW = "{:8}  {:>8}" + "  {:>16}" * 8


def _lines(report: StripeReport) -> Iterator[str]:
    until = "now" if report.until is None else f"before {report.until:%Y-%m-%d}"
    yield f"issued here or made in Stripe from {report.since:%Y-%m-%d} to {until}"
    yield _ROW.format("currency", "count", *Total().texts("USD"))
    for currency, total in sorted(report.totals.items()):
        yield _ROW.format(currency, total.invoices, *total.texts(currency).values())
    for kind, meaning in MEANINGS.items():
        yield f"{kind:14} {meaning:56} {report.counts[kind]:,}"
        yield from (f"    {one.line()}" for one in report.findings if one.kind == kind)
    for state, meaning in WAITS.items():
        if report.waits[state]:
            yield f"{state:14} {meaning:56} {report.waits[state]:,}"
            yield from (f"    {_waits(one)}" for one in report.on_their_way if one.state == state)
    said = ", ".join(f"{count:,} {name}" for name, count in report.compared.items())
    yield f"looked at in Stripe: {said}"
    yield invariants_text(report.ledger, ("I6", "I7"))
    yield from (f"not compared: {reason}" for reason in report.not_compared)


def _waits(one: OnItsWay) -> str:
    call = "" if one.call_id is None else f", call {one.call_id}"
    age = timedelta(minutes=one.age_s // 60)
    return f"{one.number or one.invoice_id}: {one.total} {one.currency}, issued {age} ago{call}"
