"""What has been used and not invoiced, and invoices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.domain.line import Line, LineKind
from ledger.domain.payment import InvoiceStatus
from ledger.domain.plan import Scope
from ledger.store.queries import QUERIES
from ledger.store.subscriptions import Subscription

_line = msgspec.json.Decoder(Line)
_places = msgspec.json.Decoder(dict[int, int])


class ToBill(msgspec.Struct, frozen=True):
    """What was used under one terms of a usage type, and what of it has been invoiced. `through`:
    how far the order of each partition has come; `positions`: how far it had then."""

    billing_period: date
    plan_tier: str
    plan_version: int
    usage_type: str
    measured: Decimal
    records: int
    billed_measured: Decimal | None
    billed_records: int | None
    billed: Decimal | None
    positions: dict[int, int]
    through: dict[int, int]

    @property
    def is_billed(self) -> bool:
        """Whether there is nothing new. Records that cancel each out change no quantity, and are
        to be on a line all the same."""
        known = self.billed_records in (None, self.records)
        return known and self.measured == self.billed_measured


class Payer(msgspec.Struct, frozen=True):
    """Who pays for usage: the user or the organisation of a subscription, or nobody, which is a
    user on the default plan."""

    subscription_id: UUID | None
    user_id: UUID | None = None
    organization_id: UUID | None = None


class Record(msgspec.Struct, frozen=True):
    usage_id: UUID
    user_id: UUID
    occurred_at: datetime
    quantity: Decimal
    reversal_of: UUID | None


class Invoice(msgspec.Struct, frozen=True, kw_only=True):
    invoice_id: UUID
    billing_period_id: UUID
    number: str | None
    subscription_id: UUID
    user_id: UUID
    organization_id: UUID | None
    scope: Scope
    period_start: datetime
    period_end: datetime
    currency: str
    status: InvoiceStatus
    subtotal: Decimal
    total: Decimal
    amount_paid: Decimal = Decimal(0)
    credited: Decimal = Decimal(0)
    parked: str | None = None
    stripe_invoice_id: str | None = None
    issued_at: datetime | None = None
    due_at: datetime | None = None
    metered: bool = False
    created_at: datetime


class InvoiceLine(msgspec.Struct, frozen=True):
    line_id: UUID
    invoice_id: UUID
    kind: LineKind
    usage_type: str | None
    description: str
    quantity: Decimal | None
    unit_amount: Decimal | None
    amount: Decimal
    plan_tier: str | None
    plan_version: int | None
    period_start: datetime | None
    period_end: datetime | None


async def to_bill(db: Executor, subscription_id: UUID, before: date | None) -> list[ToBill]:
    """Of billing periods before a day; None: of all."""
    found = []
    for row in await db.fetch(QUERIES["to_bill"], subscription_id, before):
        positions = _places.decode(row["positions"]) if row["positions"] else {}
        through = _places.decode(row["through"])
        found.append(ToBill(**{**dict(row), "positions": positions, "through": through}))
    return found


def payer_of(stored: Subscription) -> Payer:
    if stored.scope == "user":
        return Payer(stored.subscription_id, user_id=stored.user_id)
    return Payer(stored.subscription_id, organization_id=stored.organization_id)


async def records(
    db: Executor, payer: Payer, one: ToBill, since: datetime, until: datetime
) -> list[Record]:
    """The records behind a total, recorded in `[since, until)`, in the ledger's order."""
    rows = await db.fetch(
        QUERIES["measured_records"],
        payer.subscription_id,
        one.billing_period,
        one.plan_tier,
        one.plan_version,
        one.usage_type,
        since,
        until,
        payer.user_id,
        payer.organization_id,
    )
    return [Record(*(row[name] for name in Record.__struct_fields__)) for row in rows]


async def take_lines(db: Executor, subscription_id: UUID, before: datetime) -> list[Line]:
    """Lines of changes before an instant, in their order; they are no longer pending."""
    rows = await db.fetch(QUERIES["take_pending_lines"], subscription_id, before)
    in_order = sorted(rows, key=lambda row: row["line_id"])
    return [_line.decode(row["line"]) for row in in_order]


async def pending_lines(db: Executor, subscription_id: UUID) -> list[Line]:
    """Lines of changes that are not on an invoice yet."""
    rows = await db.fetch(QUERIES["pending_lines"], subscription_id)
    return [_line.decode(row["line"]) for row in rows]


async def take_number(db: Executor, currency: str, total: Decimal) -> str:
    """The next number, for an invoice of this total; nobody else has one until this transaction
    ends."""
    return f"INV-{await db.fetchval(QUERIES['next_invoice_number'], currency, total):08d}"


async def insert(db: Executor, invoice: Invoice) -> None:
    await db.execute(
        QUERIES["insert_invoice"],
        invoice.invoice_id,
        invoice.billing_period_id,
        invoice.number,
        invoice.subscription_id,
        invoice.user_id,
        invoice.organization_id,
        invoice.scope,
        invoice.period_start,
        invoice.period_end,
        invoice.currency,
        invoice.status,
        invoice.subtotal,
        invoice.total,
        invoice.parked,
        invoice.issued_at,
        invoice.due_at,
        invoice.created_at,
    )


async def insert_lines(
    db: Executor, invoice_id: UUID, lines: Sequence[tuple[UUID, Line, ToBill | None]]
) -> None:
    """Lines with their ids, in their order, each with the usage it is about: what has been drained
    of that since it was last invoiced."""
    await db.executemany(
        QUERIES["insert_line"],
        [
            (
                line_id, invoice_id, place, line.kind, line.usage_type, line.description,
                line.quantity, line.unit_amount, line.amount, line.plan_tier, line.plan_version,
                line.span and line.span.start, line.span and line.span.end,
                one and one.billing_period,
            )
            for place, (line_id, line, one) in enumerate(lines, start=1)
        ],
    )  # fmt: skip
    await db.executemany(
        QUERIES["insert_line_usage"],
        [
            (line_id, partition, one.positions.get(partition, 0), through)
            for line_id, _, one in lines
            if one is not None
            for partition, through in one.through.items()
        ],
    )


async def note_billed(db: Executor, subscription_id: UUID, one: ToBill, billable: Decimal) -> None:
    await db.execute(
        QUERIES["note_billed"],
        subscription_id,
        one.billing_period,
        one.plan_tier,
        one.plan_version,
        one.usage_type,
        one.measured,
        billable,
        msgspec.json.encode(one.through).decode(),
        one.records,
    )


async def set_credit(db: Executor, subscription_id: UUID, credit: Decimal) -> None:
    await db.execute(QUERIES["set_credit"], subscription_id, credit)


async def find(db: Executor, invoice_id: UUID) -> Invoice | None:
    row = await db.fetchrow(QUERIES["invoice"], invoice_id)
    return None if row is None else Invoice(**dict(row))


async def hold(db: Executor, invoice_id: UUID) -> Invoice | None:
    """It, locked until the transaction ends."""
    row = await db.fetchrow(QUERIES["hold_invoice"], invoice_id)
    return None if row is None else Invoice(**dict(row))


async def issue(
    db: Executor, invoice_id: UUID, number: str, now: datetime, due_at: datetime
) -> None:
    await db.execute(QUERIES["issue_invoice"], invoice_id, number, now, due_at)


async def void(db: Executor, invoice_id: UUID) -> None:
    await db.execute(QUERIES["void_invoice"], invoice_id)


async def return_credit(db: Executor, subscription_id: UUID, amount: Decimal) -> bool:
    """Whether that leaves no less than nothing."""
    found = await db.fetchval(QUERIES["return_credit"], subscription_id, amount)
    return found is not None


async def add_credited(db: Executor, invoice_id: UUID, amount: Decimal) -> None:
    await db.execute(QUERIES["add_credited"], invoice_id, amount)


async def lines(db: Executor, invoice_ids: Sequence[UUID]) -> dict[UUID, list[InvoiceLine]]:
    found: dict[UUID, list[InvoiceLine]] = {one: [] for one in invoice_ids}
    for row in await db.fetch(QUERIES["invoice_lines"], list(invoice_ids)):
        fields = {name: row[name] for name in InvoiceLine.__struct_fields__}
        found[row["invoice_id"]].append(InvoiceLine(**fields))
    return found


async def page(
    db: Executor,
    organization_id: UUID | None,
    user_id: UUID | None,
    scope: Scope | None,
    status: InvoiceStatus | None,
    before: Invoice | None,
    most: int,
    number: str | None = None,
) -> list[Invoice]:
    """Newest first, those that come after `before` in this order."""
    place = (before.created_at, before.period_end, before.invoice_id) if before else (None,) * 3
    wanted = (organization_id, user_id, scope, status)
    rows = await db.fetch(QUERIES["list_invoices"], *wanted, *place, number, most)
    return [Invoice(**dict(row)) for row in rows]


async def line_usage(
    db: Executor, invoice_id: UUID, line_id: UUID, after: UUID | None, most: int
) -> list[Mapping[str, Any]] | None:
    """Rows of the records that a line is about, newest first; None when `after` is no record."""
    at = None
    if after is not None:
        at = await db.fetchval(QUERIES["line_usage_position"], after)
        if at is None:
            return None
    found: list[Mapping[str, Any]] = await db.fetch(
        QUERIES["line_usage"], line_id, invoice_id, at, after, most
    )
    return found
