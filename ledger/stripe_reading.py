"""Reads what Stripe has, page by page: for who compares, and asks Stripe to do nothing.

A question that gets no answer is asked again a few times, at Stripe's own pace if it names one;
what still is not answered is for another day.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from ledger.domain.stripe_compare import StripeInvoice, StripeLine, StripeLines
from ledger.domain.stripe_event import EVENT_TYPES, EventType, StripeEvent
from ledger.domain.stripe_invoice import UnixSeconds, unix_seconds
from ledger.stripe_api import StripeApi
from ledger.stripe_failures import Refused, TryLater, Unknown
from ledger.stripe_pages import Page, pages

TRIES = 4
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1, 60  # between tries; who is to wait longer comes another day

Rest = Callable[[float], Awaitable[None]]


class StripeCustomer(msgspec.Struct, frozen=True):
    id: str
    metadata: dict[str, str] | None = None


class _Object(msgspec.Struct, frozen=True):
    id: str | None = None


class _Data(msgspec.Struct, frozen=True):
    object: _Object


class _Event(msgspec.Struct, frozen=True):
    id: str
    type: EventType
    created: UnixSeconds
    data: _Data


T = TypeVar("T")


class StripeReading:
    """`rest` waits so many seconds. Everything raises what `StripeApi` does."""

    def __init__(self, api: StripeApi, rest: Rest = asyncio.sleep) -> None:
        self._api = api
        self._rest = rest

    async def invoices(
        self, since: datetime, until: datetime | None
    ) -> AsyncIterator[list[StripeInvoice]]:
        """Those that were made there in `[since, until)`, newest first. Of one with many lines
        only the first are there: `lines` has all."""
        query = _made(since, until)
        async for page in pages(self._patiently, "/v1/invoices", query, Page[StripeInvoice]):
            yield page

    async def customers(
        self, since: datetime, until: datetime | None
    ) -> AsyncIterator[list[StripeCustomer]]:
        query = _made(since, until)
        async for page in pages(self._patiently, "/v1/customers", query, Page[StripeCustomer]):
            yield page

    async def events(
        self, since: datetime, until: datetime | None
    ) -> AsyncIterator[list[StripeEvent]]:
        """Of the types that change something here; Stripe has them for 30 days."""
        query = {**_made(since, until), "types": list(EVENT_TYPES)}
        async for page in pages(self._patiently, "/v1/events", query, Page[_Event]):
            yield [
                StripeEvent(
                    one.id, one.type, one.data.object.id, datetime.fromtimestamp(one.created, UTC)
                )
                for one in page
                if one.data.object.id is not None
            ]

    async def invoice(self, stripe_id: str) -> StripeInvoice | None:
        """As it is now; None where there is none."""
        try:
            found = await self._patiently(f"/v1/invoices/{stripe_id}", {}, StripeInvoice)
        except Refused as error:
            if error.status == 404:
                return None
            raise
        return found

    async def lines(self, stripe_id: str) -> StripeLines:
        """All that an invoice was made of, as we made it: the list that a look-up goes by too."""
        found: list[StripeLine] = []
        query = {"invoice": stripe_id}
        async for page in pages(self._patiently, "/v1/invoiceitems", query, Page[StripeLine]):
            found += page
        return StripeLines(found, has_more=False)

    async def _patiently(self, path: str, query: Mapping[str, Any], kind: type[T]) -> T:
        pause = FIRST_PAUSE_S
        for left in reversed(range(TRIES)):
            try:
                return await self._api.read(path, query, kind)
            except (TryLater, Unknown) as error:
                wanted = error.after_s if isinstance(error, TryLater) else None
                if not left or (wanted or 0) > LONGEST_PAUSE_S:
                    raise
                await self._rest(max(pause, wanted or 0))
                pause *= 2
        raise AssertionError("the last try has returned or raised")


def _made(since: datetime, until: datetime | None) -> dict[str, Any]:
    created = {"gte": unix_seconds(since)}
    return {"created": created if until is None else {**created, "lt": unix_seconds(until)}}
