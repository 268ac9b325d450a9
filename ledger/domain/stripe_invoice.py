"""What Stripe is asked for an invoice of ours: which requests, in which order, under which keys.

A customer, once for every payer. Then a draft that Stripe leaves alone, one item for each line, and
only when all are there `finalize`. Later, perhaps, `void` or a credit note. A call is frozen when
it is made: stored, and sent again as it is, because Stripe refuses a key that comes with another
body. The two ids that only Stripe knows are put in when it is sent; they never change.

What leaves are our ids, numbers and fixed words: never a name, nor a text that someone typed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from ledger.domain.line import LineKind
from ledger.domain.money import exact, minor_places
from ledger.domain.period import Span
from ledger.domain.rating import plain

Operation = Literal["customer", "invoice", "item", "finalize", "void", "credit_note", "meter_event"]

# What Stripe says, as far as our columns and the calendar reach: what is beyond is no answer.
Units = Annotated[int, msgspec.Meta(gt=-(10**14), lt=10**14)]
UnixSeconds = Annotated[int, msgspec.Meta(ge=0, lt=10**11)]

OUR_ID = "billing_id"  # in the metadata of everything we make there: what a look-up goes by

KINDS: dict[LineKind, str] = {
    "base_fee": "Base fee", "usage": "Usage", "minimum": "Minimum", "maximum": "Maximum",
    "proration": "Rest of the period", "credit": "Credit", "adjustment": "Late usage",
    "tax": "Tax", "discount": "Discount",
}  # fmt: skip
# The types that the service comes with. One that an operator named might be a person's name.
USAGE_TYPES = {
    "conversation_minutes": "conversation minutes", "api_calls": "API calls",
    "ai_tokens": "AI tokens", "feature_uses": "feature uses",
}  # fmt: skip
OTHER_USAGE = "other usage"

# docs.stripe.com/currencies, where Stripe does not count in the minor unit of ISO 4217.
_PLACES = {"ISK": 2, "MGA": 0}
# Either not taken by Stripe, or described there in two ways: off by a factor of 100 is too much.
_UNKNOWN = {"CLF", "IQD", "LYD", "UGX", "UYI", "UYW"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


class NotSendable(ValueError):
    """An invoice that Stripe cannot hold as it is; the message says why."""


class BilledLine(msgspec.Struct, frozen=True, kw_only=True):
    line_id: UUID
    kind: LineKind
    amount: Decimal
    usage_type: str | None = None
    quantity: Decimal | None = None
    span: Span | None = None


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """An invoice that was issued. `payer_id` is the organisation, or the user without one."""

    invoice_id: UUID
    payer_id: UUID
    number: str
    currency: str
    total: Decimal
    days_until_due: int
    lines: tuple[BilledLine, ...]


class Ids(msgspec.Struct, frozen=True, kw_only=True):
    """Stripe's ids that earlier calls were answered with."""

    customer: str | None = None
    invoice: str | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request to Stripe but for Stripe's own ids. `ours` is the id of what it is about: payer,
    invoice, line, credit or event. `total`: what the draft must come to before it is sent."""

    operation: Operation
    ours: UUID
    params: dict[str, Any]
    total: int | None = None

    def key(self, number: int = 0) -> str:
        """The idempotency key: the same for every try. Another `number` only when the result that
        Stripe keeps under this one is an error, and a look-up has found nothing."""
        return f"billing-{self.operation}-{self.ours}" + (f"-{number}" if number else "")


class Request(msgspec.Struct, frozen=True):
    path: str
    params: dict[str, Any]


PATHS: dict[Operation, str] = {
    "customer": "/v1/customers",
    "invoice": "/v1/invoices",
    "item": "/v1/invoiceitems",
    "finalize": "/v1/invoices/{invoice}/finalize",
    "void": "/v1/invoices/{invoice}/void",
    "credit_note": "/v1/credit_notes",
    "meter_event": "/v1/billing/meter_events",
}
_IDS: dict[Operation, tuple[Literal["customer", "invoice"], ...]] = {
    "customer": (),
    "invoice": ("customer",),
    "item": ("customer", "invoice"),
    "finalize": (),
    "void": (),
    "credit_note": ("invoice",),
    "meter_event": (),
}


def request_of(call: Call, ids: Ids) -> Request:
    """The call with Stripe's ids in it. Raises ValueError when one that it needs is not known."""
    placed: dict[str, Any] = {
        name: _known(name, getattr(ids, name)) for name in _IDS[call.operation]
    }
    path = PATHS[call.operation]
    if call.operation == "meter_event":
        payload = {**call.params["payload"], "stripe_customer_id": _known("customer", ids.customer)}
        return Request(path, {**call.params, "payload": payload})
    if "{invoice}" in path:
        path = path.format(invoice=_known("invoice", ids.invoice))
    return Request(path, {**placed, **call.params})


def customer_call(payer_id: UUID) -> Call:
    return Call(operation="customer", ours=payer_id, params=_marked(payer_id))


def invoice_calls(bill: Bill) -> tuple[Call, ...]:
    """In this order, each when the one before is answered. The customer is there already.

    Raises `NotSendable`.
    """
    if _sum(bill.lines) != bill.total:
        raise NotSendable("its lines do not sum to its total")
    draft = {
        "currency": bill.currency.lower(),
        "number": bill.number,
        "auto_advance": False,  # else Stripe finalises it after an hour, with the lines so far
        "collection_method": "send_invoice",
        # Not a date: it would be past, and refused, when Stripe was away for long.
        "days_until_due": bill.days_until_due,
        "pending_invoice_items_behavior": "exclude",
        **_marked(bill.invoice_id),
    }
    return (
        Call(operation="invoice", ours=bill.invoice_id, params=draft),
        *(_item(line, bill.currency) for line in bill.lines),
        Call(
            operation="finalize",
            ours=bill.invoice_id,
            params={"auto_advance": False},
            total=minor_units(bill.total, bill.currency),
        ),
    )


def void_call(invoice_id: UUID) -> Call:
    return Call(operation="void", ours=invoice_id, params={})


def credit_note_call(credit_id: UUID, amount: Decimal, currency: str) -> Call:
    """Less to be paid of an invoice that is open. Not for a credit that is a line of the next
    invoice: that would give it twice. Raises `NotSendable`."""
    if amount <= 0:
        raise NotSendable("a credit is more than 0")
    params = {"amount": minor_units(amount, currency), "email_type": "none", **_marked(credit_id)}
    return Call(operation="credit_note", ours=credit_id, params=params)


def minor_units(amount: Decimal, currency: str) -> int:
    """The amount as Stripe counts it, in whole units. Raises `NotSendable`."""
    if currency in _UNKNOWN:
        raise NotSendable(f"{currency} is not sent to Stripe")
    with exact():
        units = amount.scaleb(_places(currency))
    if units != int(units):
        raise NotSendable(f"Stripe has no such part of a {currency}")
    if minor_places(currency) == 3 and int(units) % 10:
        raise NotSendable(f"Stripe takes only whole hundredths of a {currency}")
    return int(units)


def amount_of(units: int, currency: str) -> Decimal:
    """What Stripe counts as so many units: `minor_units` the other way round."""
    with exact():
        return Decimal(units).scaleb(-_places(currency))


def description(line: BilledLine) -> str:
    """``Usage: API calls, 100400``: fixed words and a number, not the line's own description."""
    words = KINDS[line.kind]
    if line.usage_type is not None:
        words += f": {USAGE_TYPES.get(line.usage_type, OTHER_USAGE)}"
    return words if line.quantity is None else f"{words}, {plain(line.quantity)}"


def mark_of(metadata: Mapping[str, str] | None) -> str | None:
    """Our id of what Stripe has, if it was made by us."""
    return (metadata or {}).get(OUR_ID)


def uuid_of(mark: str | None) -> UUID | None:
    """None for a mark that is none of ours: whoever else uses the account may set it."""
    try:
        return None if mark is None else UUID(mark)
    except ValueError:
        return None


def unix_seconds(instant: datetime) -> int:
    """As Stripe tells the time; what is within the second is dropped."""
    return (instant - _EPOCH) // _SECOND


def _places(currency: str) -> int:
    return _PLACES.get(currency, minor_places(currency))


def _item(line: BilledLine, currency: str) -> Call:
    params: dict[str, Any] = {
        "amount": minor_units(line.amount, currency),
        "currency": currency.lower(),
        "description": description(line),
        **_marked(line.line_id),
    }
    if line.span is not None:
        start, end = unix_seconds(line.span.start), unix_seconds(line.span.end)
        params["period"] = {"start": start, "end": end}
    return Call(operation="item", ours=line.line_id, params=params)


def _marked(ours: UUID) -> dict[str, Any]:
    return {"metadata": {OUR_ID: str(ours)}}


def _known(name: str, found: str | None) -> str:
    if found is None:
        raise ValueError(f"Stripe's id of the {name} is not known yet")
    return found


def _sum(lines: Iterable[BilledLine]) -> Decimal:
    with exact():
        return sum((line.amount for line in lines), Decimal(0))
