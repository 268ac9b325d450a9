"""Stripe's invoices beside ours, page by page; then ours that were not met.

Both sides go on meanwhile. So what does not agree is looked at again, ours before and after
Stripe's: only what stands still and does not agree is told of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec

from ledger import store
from ledger.db import Connection
from ledger.domain.money import exact
from ledger.domain.stripe_compare import OurInvoice, StripeInvoice, compare, is_news
from ledger.domain.stripe_invoice import mark_of, uuid_of
from ledger.reconcile.stripe_report import Disagreement, StripeReport
from ledger.store.invoices import InvoiceLine
from ledger.store.stripe_reconcile import Kind
from ledger.stripe_reading import StripeReading

# Stripe tells within seconds, and again when it is not answered: before that nothing is missed.
PATIENCE = timedelta(minutes=15)
BATCH = 100
LOOKS = 5  # at two sides that move
_USAGE = ("usage", "adjustment")


class Days(msgspec.Struct, frozen=True):
    """Which invoices: issued here or made in Stripe in `[since, until)`. `unsettled`: and all that
    are not settled; `events_since`: since when events are looked through."""

    since: datetime
    until: datetime | None
    events_since: datetime
    unsettled: bool


class InvoicesBeside:
    def __init__(
        self,
        connection: Connection,
        reading: StripeReading,
        days: Days,
        now: datetime,
        report: StripeReport,
        beat: Callable[[], Awaitable[None]],
    ) -> None:
        self._db = connection
        self._stripe = reading
        self._days = days
        self._now = now
        self._report = report
        self._beat = beat
        self._unanswered: set[str] = set()  # ids of ours that Stripe has, and we do not know yet

    async def run(self) -> None:
        await store.stripe_reconcile.begin_seeing(self._db)
        async for page in self._stripe.invoices(self._days.since, self._days.until):
            await self._beat()
            await self._page(page)
        after = ""
        while ids := await self._not_met(after):
            await self._beat()
            lines = await store.invoices.lines(self._db, ids)
            for one in await store.stripe_reconcile.invoices(self._db, ours=ids):
                await self._alone(one, lines[one.invoice_id])
                after = max(after, one.number or "")

    async def _not_met(self, after: str) -> list[UUID]:
        days = self._days
        return await store.stripe_reconcile.not_seen(
            self._db, days.since, days.until, after, BATCH, unsettled=days.unsettled
        )

    async def _page(self, page: Sequence[StripeInvoice]) -> None:
        marks = [uuid_of(mark_of(one.metadata)) for one in page]
        rows = await store.stripe_reconcile.invoices(
            self._db,
            [one.id for one in page],
            [one for one in marks if one],
            [one.number for one in page if one.number],
        )
        lines = await store.invoices.lines(self._db, [one.invoice_id for one in rows])
        there = {one.there: one for one in rows if one.there}
        met = []
        for one in page:
            ours = there.get(one.id)
            if ours is None:
                self._stranger(one, rows)
            elif ours.stands == "there":
                await self._both(ours, lines[ours.invoice_id], one)
                met.append(one.id)
        await store.stripe_reconcile.saw(self._db, met)

    def _stranger(self, one: StripeInvoice, rows: Sequence[OurInvoice]) -> None:
        """One in Stripe that is none of ours, as far as we know."""
        mark = mark_of(one.metadata)
        marked = next((row for row in rows if str(row.invoice_id) == mark), None)
        named = next((row for row in rows if row.number == one.number), None)
        ours = marked or named
        if mark is None and ours is None:
            return  # somebody else's
        if marked and marked.there is None and marked.undone and mark not in self._unanswered:
            self._unanswered.add(str(mark))  # it was made, and its answer is not here yet
            return
        what = "invoice, of none here" if ours is None else "second invoice of one here"
        if marked is None and named:
            what = "invoice with a number of ours"
        self._report.total(one.currency.upper()).theirs += one.amount
        self._report.found(
            Disagreement(
                kind="extra",
                what=what,
                number=one.number,
                invoice_id=uuid_of(mark) or (ours.invoice_id if ours else None),
                stripe_id=one.id,
                ours=None if ours is None else ours.there,
                theirs=f"{one.amount} {one.currency.upper()}",
            )
        )

    async def _alone(self, ours: OurInvoice, lines: Sequence[InvoiceLine]) -> None:
        """One of ours that was not met among Stripe's."""
        if ours.stands == "there":
            await self._again(ours, lines)
        elif ours.stands != "nowhere":
            self._waits(ours)

    def _waits(self, ours: OurInvoice) -> None:
        assert ours.stands in ("waiting", "parked", "skipped")
        self._report.waits_for(ours.stands, ours, self._now)
        total = self._report.total(ours.currency)
        setattr(total, ours.stands, getattr(total, ours.stands) + ours.total)

    async def _both(
        self, ours: OurInvoice, lines: Sequence[InvoiceLine], theirs: StripeInvoice
    ) -> None:
        if theirs.lines.has_more:
            every = await self._stripe.lines(theirs.id)
            theirs = msgspec.structs.replace(theirs, lines=every)
        if compare(ours, _amounts(lines), theirs):
            await self._again(ours, lines)
        else:
            self._add(ours, lines, theirs)

    async def _again(self, ours: OurInvoice, lines: Sequence[InvoiceLine]) -> None:
        """Tells of what does not agree while neither side moves."""
        before, theirs = ours, None
        for _ in range(LOOKS):
            theirs = await self._now_there(ours.there or "")
            [after] = await store.stripe_reconcile.invoices(self._db, ours=[ours.invoice_id])
            if after == before:
                break
            before = after
        if before.stands != "there":
            return self._waits(before)
        self._add(before, lines, theirs)
        if theirs is None:
            return self._differs(before, "missing", "invoice", before.there, None)
        news = is_news(before, theirs)
        if news:
            await self._news(before, theirs)
        for one in compare(before, _amounts(lines), theirs):
            if not (news and one.what in ("status", "amount_paid")):
                self._differs(before, "different", one.what, one.ours, one.theirs)

    async def _now_there(self, stripe_id: str) -> StripeInvoice | None:
        found = await self._stripe.invoice(stripe_id)
        if found is None:
            return None
        return msgspec.structs.replace(found, lines=await self._stripe.lines(stripe_id))

    async def _news(self, ours: OurInvoice, theirs: StripeInvoice) -> None:
        """Something has become of it that is not here: yet, or because nobody has told."""
        if ours.is_told:
            self._report.waits_for("told", ours, self._now)
        elif self._now - theirs.changed_at < PATIENCE:
            self._report.waits_for("just happened", ours, self._now)
        else:
            await store.stripe_reconcile.want_look(self._db, theirs.id, self._now)
            self._differs(ours, "missed", "status", ours.status, theirs.status)

    def _differs(
        self, ours: OurInvoice, kind: Kind, what: str, here: str | None, there: str | None
    ) -> None:
        self._report.found(
            Disagreement(
                kind=kind,
                what=what,
                number=ours.number,
                invoice_id=ours.invoice_id,
                stripe_id=ours.there,
                ours=here,
                theirs=there,
            )
        )

    def _add(
        self, ours: OurInvoice, lines: Sequence[InvoiceLine], theirs: StripeInvoice | None
    ) -> None:
        total = self._report.total(ours.currency)
        self._report.compared["invoices"] += 1
        self._report.compared["lines"] += len(lines)
        with exact():
            total.invoices += 1
            total.ours += ours.total
            total.lines += sum((one.amount for one in lines), Decimal(0))
            total.usage += sum((one.amount for one in lines if one.kind in _USAGE), Decimal(0))
            if theirs is not None:
                self._report.total(theirs.currency.upper()).theirs += theirs.amount


def _amounts(lines: Sequence[InvoiceLine]) -> dict[UUID, Decimal]:
    return {one.line_id: one.amount for one in lines}
