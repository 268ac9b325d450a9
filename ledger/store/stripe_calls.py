"""What is owed to Stripe: calls, how far each has come, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.domain.plan import Scope
from ledger.domain.stripe_attempt import Attempt
from ledger.domain.stripe_invoice import Call, Operation
from ledger.store.invoices import Invoice
from ledger.store.queries import QUERIES
from ledger.store.subscriptions import Subscription

Parked = Literal["refused", "ambiguous", "not_opaque", "not_sendable", "too_old"]
Skipped = Literal["operator", "voided"]

_call = msgspec.json.Decoder(Call)
_attempt = msgspec.json.Decoder(Attempt)


class Payer(msgspec.Struct, frozen=True):
    """Who is billed: an organisation, or a user without one."""

    payer_id: UUID
    scope: Scope

    @classmethod
    def of(cls, one: Invoice | Subscription) -> Payer:
        if one.scope == "user" or one.organization_id is None:
            return cls(one.user_id, "user")
        return cls(one.organization_id, "organization")


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A call whose turn it is. Ids of Stripe's: `given`, the customer that the organisation says;
    `made`, the one that we had made; `customer`, for whom the invoice's draft is; the invoice."""

    call_id: int
    payer: Payer
    invoice_id: UUID | None
    call: Call
    attempt: Attempt
    given: str | None
    made: str | None
    customer: str | None
    stripe_invoice: str | None


class ParkedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One that waits for a person. `is_unsendable`: Stripe cannot hold the invoice, so there is no
    call; `number` is the invoice's, `stripe_invoice` its draft there."""

    call_id: int
    payer_id: UUID
    scope: Scope
    invoice_id: UUID | None
    operation: Operation
    is_unsendable: bool
    attempt: Attempt
    attempts: int
    last_error: str | None
    parked: Parked
    created_at: datetime
    number: str | None
    stripe_invoice: str | None


class Draft(msgspec.Struct, frozen=True):
    """How far the draft of an invoice has come; `is_skipped`: something of the invoice is."""

    payer: Payer
    attempt: Attempt
    is_done: bool
    is_skipped: bool


async def lock_owing(db: Executor) -> bool:
    """Whether nobody else owes; held until the transaction ends."""
    return bool(await db.fetchval(QUERIES["lock_stripe_owing"]))


async def unowed(db: Executor, most: int) -> list[Invoice]:
    """Invoices that were issued and are owed to Stripe by no call, in the order of their numbers;
    locked until the transaction ends."""
    return [Invoice(**dict(row)) for row in await db.fetch(QUERIES["stripe_unowed"], most)]


async def insert(
    db: Executor, payer: Payer, invoice_id: UUID | None, calls: Iterable[Call], now: datetime
) -> None:
    """Owes calls in their order, after all that the payer is owed before."""
    rows = [
        (payer.payer_id, payer.scope, invoice_id, call.operation, call.ours,
         msgspec.json.encode(call).decode(), None, now)
        for call in calls
    ]  # fmt: skip
    await db.executemany(QUERIES["insert_stripe_call"], rows)


async def insert_unsendable(
    db: Executor, payer: Payer, invoice_id: UUID, now: datetime
) -> int | None:
    """An invoice that Stripe cannot hold, parked; its id."""
    about = payer.payer_id, payer.scope, invoice_id, "invoice", invoice_id
    found: int | None = await db.fetchval(
        QUERIES["insert_stripe_call"], *about, None, "not_sendable", now
    )
    return found


async def due(db: Executor, now: datetime) -> Due | None:
    """The call that is due for longest, locked until the transaction ends."""
    row = await db.fetchrow(QUERIES["due_stripe_call"], now)
    if row is None:
        return None
    fields = dict(row)
    payer = Payer(fields.pop("payer_id"), fields.pop("scope"))
    fields.pop("operation")
    call, attempt = _call.decode(fields.pop("body")), _attempt.decode(fields.pop("attempt"))
    return Due(payer=payer, call=call, attempt=attempt, **fields)


async def claim(
    db: Executor, call_id: int, attempt: Attempt, customer: str | None, until: datetime
) -> int:
    """Leaves it to the caller until then; the number of the claim."""
    said = _encoded(attempt)
    return int(await db.fetchval(QUERIES["claim_stripe_call"], call_id, said, customer, until))


async def again(
    db: Executor, call_id: int, claimed: int, attempt: Attempt, at: datetime, error: str | None
) -> None:
    """It is to be tried again then. Nothing, when another has claimed it since."""
    said = _encoded(attempt)
    await db.execute(QUERIES["stripe_call_again"], call_id, claimed, said, at, error)


async def park(
    db: Executor, call_id: int, claimed: int, why: Parked, error: str, *, other_customer: bool
) -> bool:
    """Leaves it to a person; False when another has claimed it since. `other_customer`: for whom
    the draft is made is decided anew."""
    found = await db.fetchval(
        QUERIES["park_stripe_call"], call_id, claimed, why, error, other_customer
    )
    return found is not None


async def done(db: Executor, call_id: int, stripe_id: str, now: datetime) -> bool:
    """False when it was done already."""
    return await db.fetchval(QUERIES["stripe_call_done"], call_id, stripe_id, now) is not None


async def set_stripe_invoice(db: Executor, invoice_id: UUID, stripe_id: str) -> None:
    await db.execute(QUERIES["set_stripe_invoice"], invoice_id, stripe_id)


async def hold_draft(db: Executor, invoice_id: UUID) -> Draft | None:
    """The draft of an invoice, locked until the transaction ends; None when nothing is owed."""
    row = await db.fetchrow(QUERIES["hold_stripe_draft"], invoice_id)
    if row is None:
        return None
    payer = Payer(row["payer_id"], row["scope"])
    return Draft(payer, _attempt.decode(row["attempt"]), row["is_done"], row["is_skipped"])


async def skip_invoice(db: Executor, invoice_id: UUID, why: Skipped, now: datetime) -> None:
    await db.execute(QUERIES["skip_stripe_invoice"], invoice_id, why, now)


async def skip_call(db: Executor, call_id: int, now: datetime) -> None:
    """The parked call is never made."""
    await db.execute(QUERIES["skip_stripe_call"], call_id, now)


async def parked(db: Executor, call_id: int | None = None) -> list[ParkedCall]:
    """All, or one of them, oldest first."""
    found = []
    for row in await db.fetch(QUERIES["parked_stripe_calls"], call_id):
        fields: dict[str, Any] = dict(row)
        found.append(ParkedCall(**{**fields, "attempt": _attempt.decode(fields["attempt"])}))
    return found


async def unpark(db: Executor, call_id: int, attempt: Attempt, now: datetime) -> bool:
    """Due again; False when it is parked no more."""
    said = _encoded(attempt)
    return await db.fetchval(QUERIES["unpark_stripe_call"], call_id, said, now) is not None


async def redo_customer(db: Executor, payer_id: UUID, now: datetime) -> None:
    """Which customer the payer is, is decided anew before its next call."""
    await db.execute(QUERIES["redo_stripe_customer"], payer_id, now)


async def forget(db: Executor, call_id: int) -> bool:
    """An unsendable invoice is owed anew; False when it is owed no more."""
    return await db.fetchval(QUERIES["forget_stripe_call"], call_id) is not None


def _encoded(attempt: Attempt) -> str:
    return msgspec.json.encode(attempt).decode()
