"""Reading invoices: who may, and what they say. Finance reads all, others their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from functools import partial
from uuid import UUID

from msgspec import UNSET

from gateway.accounts import Accounts
from gateway.auth import Action, Principal, Reach
from gateway.guard import refuse_phi
from gateway.invoice_messages import (
    InvoiceAnswer,
    InvoiceLineAnswer,
    InvoiceList,
    InvoiceQuery,
    LineUsageList,
    PageQuery,
    PurgedMonth,
    UpcomingAnswer,
    credit_decoder,
    reason_decoder,
)
from gateway.messages import decode, encoder
from gateway.once import Answer, asked_once, key_reused, replay
from gateway.problems import Kind, Problem, unavailable
from gateway.subscription_answers import line_shown, period
from gateway.subscription_changes import Now
from gateway.subscription_messages import SubscriptionQuery
from gateway.subscriptions import Subscriptions
from gateway.usage_list import listed
from ledger import db, invoicing, store
from ledger.domain.line import Line
from ledger.domain.money import amount_text
from ledger.domain.period import Span
from ledger.invoice_actions import InvoiceActions, NoInvoice, NotPossible
from ledger.once import KeyReused, Replayed
from ledger.store.invoices import Invoice, InvoiceLine


class Invoices:
    """The invoice routes, free of HTTP."""

    def __init__(
        self, accounts: Accounts, pool: db.Pool, subscriptions: Subscriptions, now: Now
    ) -> None:
        self._accounts = accounts
        self._pool = pool
        self._subscriptions = subscriptions
        self._actions = InvoiceActions(pool)
        self._now = now

    async def page(self, principal: Principal, query: InvoiceQuery) -> bytes:
        """`GET /invoices`: newest first, as far as the caller may see them."""
        reach = principal.reach(Action.READ_SUBSCRIPTION)
        organization = self._accounts.optional(query.organization_id, Kind.INVALID_REQUEST)
        user = query.user_id and self._accounts.identify(query.user_id, "user_id")
        if reach is Reach.OWN:
            if principal.user_id is None or user not in (None, "", principal.user_id):
                raise Problem(Kind.FORBIDDEN, "only your own invoices may be read")
            user = principal.user_id
        elif reach is Reach.ORGANIZATIONS:
            if organization is None:
                raise Problem(Kind.INVALID_REQUEST, "organization_id is needed")
            if not principal.acts_for(organization):
                raise Problem(Kind.NOT_FOUND, "there is no such organization", denied=True)
        try:
            before = None
            if query.starting_after is not None:
                before = await store.invoices.find(self._pool, query.starting_after)
                if before is None or not _may_read(principal, reach, before):
                    raise Problem(Kind.INVALID_REQUEST, "starting_after is no invoice of this list")
            found = await store.invoices.page(
                self._pool,
                organization,
                user or None,
                "user" if reach is Reach.OWN else None,
                query.status,
                before,
                query.limit + 1,
                query.number,
            )
            data = await self._answers(found[: query.limit])
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        return encoder.encode(InvoiceList(data=data, has_more=len(found) > query.limit))

    async def read(self, principal: Principal, invoice: str) -> bytes:
        """`GET /invoices/{id}`."""
        try:
            [answer] = await self._answers([await self._found(principal, invoice)])
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        return encoder.encode(answer)

    async def line_usage(
        self, principal: Principal, invoice: str, line: str, query: PageQuery
    ) -> bytes:
        """`GET /invoices/{id}/lines/{line_id}/usage`: the records behind a line, newest first."""
        try:
            found = await self._found(principal, invoice)
            line_id = _uuid(line)
            lines = (await store.invoices.lines(self._pool, [found.invoice_id]))[found.invoice_id]
            if line_id not in {one.line_id for one in lines}:
                raise Problem(Kind.NOT_FOUND, "there is no such line")
            rows = await store.invoices.line_usage(
                self._pool, found.invoice_id, line_id, query.starting_after, query.limit + 1
            )
            gone = await store.retention.of_line(self._pool, line_id)
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        if rows is None:
            raise Problem(Kind.INVALID_REQUEST, "starting_after is no record of this list")
        data = [listed(row) for row in rows[: query.limit]]
        return encoder.encode(
            LineUsageList(
                data=data,
                has_more=len(rows) > query.limit,
                purged=[
                    PurgedMonth(month=f"{one.month:%Y-%m}", archive=one.archive) for one in gone
                ]
                or UNSET,
            )
        )

    async def issue(self, principal: Principal, invoice: str) -> bytes:
        """`POST /invoices/{id}/issue`: one that was parked."""
        principal.reach(Action.CHANGE)
        return await self._acted(_uuid(invoice), principal, self._actions.issue)

    async def void(self, principal: Principal, invoice: str, body: bytes) -> bytes:
        """`POST /invoices/{id}/void`."""
        principal.reach(Action.CHANGE)
        reason = decode(reason_decoder, body).reason
        refuse_phi("reason", reason)
        return await self._acted(
            _uuid(invoice), principal, partial(self._actions.void, reason=reason)
        )

    async def credit(
        self, principal: Principal, invoice: str, body: bytes, idempotency_key: str | None
    ) -> Answer:
        """`POST /invoices/{id}/credits`: a line of the next invoice. Under a key that was used,
        what was answered then."""
        principal.reach(Action.CHANGE)
        asked, invoice_id = decode(credit_decoder, body), _uuid(invoice)
        refuse_phi("reason", asked.reason)

        async def told(connection: db.Executor, done: Invoice) -> Answer:
            lines = await store.invoices.lines(connection, [done.invoice_id])
            return encoder.encode(_answer(done, lines[done.invoice_id])), {}

        once = asked_once(principal, idempotency_key, "credit", invoice_id, asked, told=told)
        amount = Decimal(asked.amount)
        work = partial(self._actions.credit, amount=amount, reason=asked.reason, once=once)
        try:
            return await self._acted(invoice_id, principal, work), {}
        except Replayed as replayed:
            return replay(replayed)

    async def _acted(
        self, invoice_id: UUID, principal: Principal, work: Callable[..., Awaitable[Invoice]]
    ) -> bytes:
        try:
            done = await work(invoice_id, actor=principal.subject, now=await self._now())
            [answer] = await self._answers([done])
        except NoInvoice:
            raise Problem(Kind.NOT_FOUND, "there is no such invoice") from None
        except NotPossible as error:
            raise Problem(Kind.CONFLICT, str(error)) from None
        except KeyReused:
            raise key_reused() from None
        except db.UNAVAILABLE:
            raise unavailable(
                "the ledger's database does not answer", outcome_unknown=True
            ) from None
        return encoder.encode(answer)

    async def upcoming(self, principal: Principal, user: str, query: SubscriptionQuery) -> bytes:
        """`GET /invoices/upcoming/{user_id}`: what the running period comes to so far."""
        try:
            stored = await self._subscriptions.live(principal, user, query)
            if stored is None or stored.running is None:
                raise Problem(Kind.NOT_FOUND, "there is no such subscription")
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                drafted = await invoicing.upcoming(connection, stored)
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        draft = drafted.draft
        return encoder.encode(
            UpcomingAnswer(
                preview=True,
                subscription_id=stored.subscription_id,
                period=period(stored.running),
                currency=draft.currency,
                lines=[line_shown(one, draft.currency) for one in draft.lines],
                subtotal=amount_text(draft.subtotal, draft.currency),
                total=amount_text(draft.total, draft.currency),
            )
        )

    async def _found(self, principal: Principal, invoice: str) -> Invoice:
        reach = principal.reach(Action.READ_SUBSCRIPTION)
        found = await store.invoices.find(self._pool, _uuid(invoice))
        if found is None or not _may_read(principal, reach, found):
            foreign = found is not None
            raise Problem(Kind.NOT_FOUND, "there is no such invoice", denied=foreign)
        return found

    async def _answers(self, found: Sequence[Invoice]) -> list[InvoiceAnswer]:
        lines = await store.invoices.lines(self._pool, [one.invoice_id for one in found])
        return [_answer(one, lines[one.invoice_id]) for one in found]


def _may_read(principal: Principal, reach: Reach, invoice: Invoice) -> bool:
    if reach is Reach.ALL:
        return True
    if reach is Reach.OWN:
        return invoice.scope == "user" and invoice.user_id == principal.user_id
    return invoice.organization_id is not None and principal.acts_for(invoice.organization_id)


def _answer(invoice: Invoice, lines: Sequence[InvoiceLine]) -> InvoiceAnswer:
    currency = invoice.currency
    tax = sum((one.amount for one in lines if one.kind == "tax"), Decimal(0))
    return InvoiceAnswer(
        invoice_id=invoice.invoice_id,
        number=invoice.number,
        subscription_id=invoice.subscription_id,
        user_id=invoice.user_id,
        organization_id=invoice.organization_id,
        period=period(Span(invoice.period_start, invoice.period_end)),
        currency=currency,
        status=invoice.status,
        lines=[_line(one, currency) for one in lines],
        subtotal=amount_text(invoice.subtotal, currency),
        total=amount_text(invoice.total, currency),
        tax=amount_text(tax, currency),
        amount_paid=amount_text(invoice.amount_paid, currency),
        credited=amount_text(invoice.credited, currency),
        issued_at=invoice.issued_at,
        due_at=invoice.due_at,
        parked=invoice.parked,
        stripe_invoice_id=invoice.stripe_invoice_id,
    )


def _line(one: InvoiceLine, currency: str) -> InvoiceLineAnswer:
    span = None
    if one.period_start is not None and one.period_end is not None:
        span = Span(one.period_start, one.period_end)
    shown = line_shown(
        Line(
            kind=one.kind,
            usage_type=one.usage_type,
            description=one.description,
            quantity=one.quantity,
            unit_amount=one.unit_amount,
            amount=one.amount,
            span=span,
        ),
        currency,
    )
    return InvoiceLineAnswer(
        line_id=one.line_id,
        kind=shown.kind,
        usage_type=shown.usage_type,
        description=shown.description,
        quantity=shown.quantity,
        unit_amount=shown.unit_amount,
        amount=shown.amount,
        period=shown.period,
    )


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Problem(Kind.NOT_FOUND, "there is no such invoice") from None
