"""What Stripe tells of an invoice: that something has happened, and to which. What it is like now
is asked, so that it does not matter in which order, how often or how late one is told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from ledger.domain.stripe_invoice import UnixSeconds

EventType = Literal[
    "invoice.paid",
    "invoice.payment_failed",
    "invoice.overdue",
    "invoice.voided",
    "invoice.marked_uncollectible",
]
EVENT_TYPES: tuple[EventType, ...] = EventType.__args__  # type: ignore[attr-defined]


class NoEvent(ValueError):
    """The body is not an event of Stripe's."""


class StripeEvent(msgspec.Struct, frozen=True):
    """`created_at` is Stripe's time, in whole seconds."""

    event_id: str
    type: EventType
    stripe_invoice_id: str
    created_at: datetime


class _Object(msgspec.Struct, frozen=True):
    id: str | None = None


class _Data(msgspec.Struct, frozen=True):
    object: _Object


class _Told(msgspec.Struct, frozen=True):
    id: Annotated[str, msgspec.Meta(pattern=r"\Aevt_[A-Za-z0-9_]{1,250}\Z")]
    type: str
    created: UnixSeconds
    data: _Data


_Id = Annotated[str, msgspec.Meta(pattern=r"\Ain_[A-Za-z0-9]{1,64}\Z")]
_decoder = msgspec.json.Decoder(_Told)


def parse(body: bytes) -> StripeEvent | None:
    """The event; None for one of a type that changes nothing here. Raises `NoEvent`."""
    try:
        told = _decoder.decode(body)
        if told.type not in EVENT_TYPES:
            return None
        invoice = msgspec.convert(told.data.object.id, _Id)
        kind = msgspec.convert(told.type, EventType)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NoEvent from None
    return StripeEvent(told.id, kind, invoice, datetime.fromtimestamp(told.created, UTC))
