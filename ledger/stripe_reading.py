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

PAGE = 100  # the most that Stripe lists at once
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


class _Invoices(msgspec.Struct, frozen=True):
    data: list[StripeInvoice]
    has_more: bool


class _Customers(msgspec.Struct, frozen=True):
    data: list[StripeCustomer]
    has_more: bool


class _Events(msgspec.Struct, frozen=True):
    data: list[_Event]
    has_more: bool


P = TypeVar("P", _Invoices, _Customers, _Events, StripeLines)
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
        async for page in self._pages("/v1/invoices", _made(since, until), _Invoices):
            yield page.data

    async def customers(
        self, since: datetime, until: datetime | None
    ) -> AsyncIterator[list[StripeCustomer]]:
        async for page in self._pages("/v1/customers", _made(since, until), _Customers):
            yield page.data

    async def events(
        self, since: datetime, until: datetime | None
    ) -> AsyncIterator[list[StripeEvent]]:
        """Of the types that change something here; Stripe has them for 30 days."""
        query = {**_made(since, until), "types": list(EVENT_TYPES)}
        async for page in self._pages("/v1/events", query, _Events):
            yield [
                StripeEvent(
                    one.id, one.type, one.data.object.id, datetime.fromtimestamp(one.created, UTC)
                )
                for one in page.data
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
        async for page in self._pages("/v1/invoiceitems", {"invoice": stripe_id}, StripeLines):
            found += page.data
        return StripeLines(found, has_more=False)

    async def _pages(self, path: str, query: Mapping[str, Any], kind: type[P]) -> AsyncIterator[P]:
        after: dict[str, str] = {}
        while True:
            page = await self._patiently(path, {**query, "limit": PAGE, **after}, kind)
            yield page
            if not page.has_more or not page.data:
                return
            after = {"starting_after": page.data[-1].id}

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
