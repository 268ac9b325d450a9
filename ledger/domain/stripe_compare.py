"""An invoice of ours beside Stripe's: what does not agree. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

import msgspec

from ledger.domain.money import exact
from ledger.domain.payment import InvoiceStatus, Seen, judge
from ledger.domain.stripe_event import EventType
from ledger.domain.stripe_invoice import Units, UnixSeconds, amount_of, mark_of, uuid_of

Stands = Literal["there", "waiting", "parked", "skipped", "nowhere"]


class OurInvoice(msgspec.Struct, frozen=True, kw_only=True):
    """An invoice and how far it has come on its way to Stripe. `draft`: Stripe's id since it has
    one at all; `stripe_invoice_id`: since it is finished there. `undone`: calls that are still to
    be made, of which `parked_call` waits for a person. `is_metered`: Stripe makes one of its own
    from its meters, and is not given this one. `is_told`: an event of it is not seen to
    yet."""

    invoice_id: UUID
    number: str | None
    currency: str
    status: InvoiceStatus
    total: Decimal
    amount_paid: Decimal
    issued_at: datetime | None
    stripe_invoice_id: str | None
    is_metered: bool
    draft: str | None
    customer: str | None
    undone: int
    parked_call: int | None
    is_skipped: bool | None
    is_told: bool

    @property
    def there(self) -> str | None:
        """Stripe's id of it."""
        return self.stripe_invoice_id or self.draft

    @property
    def stands(self) -> Stands:
        """Whether it must be in Stripe as it is here. `skipped`: a person has let it be;
        `nowhere`: it is not to be there at all."""
        if self.parked_call is not None:
            return "parked"
        if self.is_skipped:
            return "skipped"
        is_owed = self.status == "open" and not self.is_metered
        if self.undone or (is_owed and self.stripe_invoice_id is None):
            return "waiting"
        return "there" if self.stripe_invoice_id else "nowhere"


class StripeLine(msgspec.Struct, frozen=True):
    """A line, or the item that it was made of; its amount in Stripe's minor units."""

    id: str
    amount: Units
    metadata: dict[str, str] | None = None


class StripeLines(msgspec.Struct, frozen=True):
    data: list[StripeLine]
    has_more: bool


class Moments(msgspec.Struct, frozen=True):
    """When it became what it is, in Unix seconds."""

    finalized_at: UnixSeconds | None = None
    marked_uncollectible_at: UnixSeconds | None = None
    paid_at: UnixSeconds | None = None
    voided_at: UnixSeconds | None = None


class StripeInvoice(msgspec.Struct, frozen=True, kw_only=True):
    """An invoice as Stripe has it."""

    id: str
    currency: str
    total: Units
    amount_paid: Units
    status: str | None = None
    number: str | None = None
    customer: str | None = None
    metadata: dict[str, str] | None = None
    lines: StripeLines
    status_transitions: Moments = Moments()

    @property
    def changed_at(self) -> datetime:
        """When it last became something else."""
        moments = msgspec.structs.astuple(self.status_transitions)
        return datetime.fromtimestamp(max(one or 0 for one in moments), UTC)

    @property
    def amount(self) -> Decimal:
        """Its total, in its own currency."""
        return amount_of(self.total, self.currency.upper())


class Difference(msgspec.Struct, frozen=True):
    """`what` is a field's name; both figures as a person reads them."""

    what: str
    ours: str | None
    theirs: str | None


def compare(
    ours: OurInvoice, lines: Mapping[UUID, Decimal], theirs: StripeInvoice
) -> list[Difference]:
    """Everything in which they do not agree; `lines`: the amounts of ours."""
    currency = ours.currency
    pairs: dict[str, tuple[Decimal | str | None, Decimal | str | None]] = {
        "currency": (currency, theirs.currency.upper()),
        "total": (ours.total, amount_of(theirs.total, currency)),
        "number": (ours.number, theirs.number),
        "customer": (ours.customer or theirs.customer, theirs.customer),
        "status": (ours.status, _status(ours.status, theirs.status)),
        "amount_paid": (ours.amount_paid, amount_of(theirs.amount_paid, currency)),
    }
    found = [Difference(what, _plain(a), _plain(b)) for what, (a, b) in pairs.items() if a != b]
    return [*found, *_lines(lines, theirs.lines.data, currency)]


def is_news(ours: OurInvoice, theirs: StripeInvoice) -> bool:
    """Whether ours becomes what Stripe's is once somebody looks there: nothing told of it."""
    seen = Seen(
        status=theirs.status or "",
        total=amount_of(theirs.total, ours.currency),
        amount_paid=amount_of(theirs.amount_paid, ours.currency),
    )
    verdict = judge(ours.status, ours.total, ours.amount_paid, seen)
    now = (ours.status, ours.amount_paid)
    return verdict.contradiction is None and (verdict.status, verdict.amount_paid) != now


def is_here(event: EventType, status: InvoiceStatus, *, is_owed: bool) -> bool:
    """Whether what an event tells of is known of an invoice, though nobody brought the event."""
    if event == "invoice.paid":
        return status == "paid"
    if event == "invoice.voided":
        return status == "void"
    return status != "open" or (is_owed and event != "invoice.marked_uncollectible")


def _status(ours: str, theirs: str | None) -> str | None:
    """Stripe is not told that an invoice was given up here."""
    return ours if (ours, theirs) == ("uncollectible", "open") else theirs


def _lines(
    ours: Mapping[UUID, Decimal], theirs: list[StripeLine], currency: str
) -> Iterator[Difference]:
    if len(ours) != len(theirs):
        yield Difference("lines", str(len(ours)), str(len(theirs)))
    amounts: dict[UUID, Decimal] = {}
    for line in theirs:
        amount, one = amount_of(line.amount, currency), uuid_of(mark_of(line.metadata))
        if one is None or one not in ours or one in amounts:
            yield Difference(f"line {line.id}", None, _plain(amount))
        else:
            amounts[one] = amount
    for one, amount in ours.items():
        if amounts.get(one) != amount:
            yield Difference(f"line {one}", _plain(amount), _plain(amounts.get(one)))


def _plain(value: Decimal | str | None) -> str | None:
    if not isinstance(value, Decimal):
        return value
    with exact():
        return f"{value.normalize():f}"
