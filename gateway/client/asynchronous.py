"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

from gateway.client.batching import Batcher, Batching
from gateway.client.metering import Clock, Meter
from gateway.client.results import Checked, Corrected, Quotas, Recorded, UsagePage, UsageRecord
from gateway.client.sending import Call, Retrying, Sender
from gateway.client.transport import Answer, Http, Token
from gateway.client.usage import Id, Quantity, correction_body, usage_body, usage_key, usage_query

T = TypeVar("T")


class BillingClient:
    """One billing service; belongs to one event loop and is shared by its tasks.

    `url` is such as ``http://localhost:8081``. `token` is a bearer token, or a function, async or
    not, asked for it before every attempt: return a cached one and renew it when it is due.
    `batch` gathers concurrent records into few requests. Every call raises a `BillingError` when
    the service refuses or is not reached within `Retrying.deadline_seconds`. Arguments that cannot
    be sent raise TypeError or ValueError.
    """

    def __init__(
        self,
        url: str,
        token: Token = None,
        *,
        batch: bool | Batching = False,
        retrying: Retrying | None = None,
        connections: int = 100,
    ) -> None:
        self._http = Http(url, token, connections)
        self._sender = Sender(retrying or Retrying())
        options = Batching() if batch is True else batch
        self._batcher = Batcher(options, self._sender, self._post_batch) if options else None
        self._closed = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._http.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Takes no more calls, sends what waits, and returns when every call has its answer."""
        self._closed = True
        try:
            if self._batcher is not None:
                self._batcher.hurry()
            await self._idle.wait()
        finally:
            await self._http.close()

    async def record(
        self,
        *,
        user_id: Id,
        usage_type: str,
        quantity: Quantity,
        organization_id: Id | None = None,
        metadata: Mapping[str, str] | None = None,
        occurred_at: datetime | None = None,
        key: str | None = None,
    ) -> Recorded:
        """Counts and stores usage exactly once, however often it has to be sent.

        `key` is the idempotency key: give one of your own (such as a conversation's turn) to be
        safe across restarts of your service too; otherwise a new one is made. Raises
        `QuotaExceeded` or `RateLimited` when a limit refuses, `Unavailable` when there was no
        definite answer in time. When cancelled, it may have been recorded or not.
        """
        key = usage_key(key)
        body = usage_body(
            user_id,
            usage_type,
            quantity,
            organization_id=organization_id,
            metadata=metadata,
            occurred_at=occurred_at,
            key=key,
        )
        call = self._call(_read_recorded, body=body, key=key)
        if self._batcher is None:
            return await self._answered(call, "POST", "/usage")
        with self._counted():
            return await self._batcher.submit(call)

    async def correct(
        self, usage_id: Id, *, quantity: Quantity, reason: str, key: str | None = None
    ) -> Corrected:
        """Adds to recorded usage, or takes some of it back (a negative quantity), exactly once.

        Needs a token of finance or admin. `reason` goes into the audit trail: name no patient.
        `key` as in `record`. Usage that is too new to be in the ledger is waited for until the
        deadline. Raises `Conflict` when more would be taken back than is left, `Unavailable` when
        there was no definite answer in time.
        """
        key = usage_key(key)
        body = correction_body(quantity, reason, key)
        call = self._call(_read_corrected, body=body, key=key)
        path = f"/usage/{quote(str(usage_id), safe='')}/corrections"
        return await self._answered(call, "POST", path)

    async def check(
        self,
        *,
        user_id: Id,
        usage_type: str,
        quantity: Quantity,
        organization_id: Id | None = None,
    ) -> Checked:
        """Whether this quantity would be admitted now; records nothing and promises nothing."""
        body = usage_body(user_id, usage_type, quantity, organization_id=organization_id)
        call = self._call(lambda answer: Checked.read(answer.document), body=body)
        return await self._answered(call, "POST", "/quota/check")

    async def quota(self, user_id: Id, *, organization_id: Id | None = None) -> Quotas:
        """Every quota of a user in the current period."""
        params = {} if organization_id is None else {"organization_id": str(organization_id)}
        call = self._call(lambda answer: Quotas.read(answer.document))
        return await self._answered(call, "GET", f"/quota/{quote(str(user_id), safe='')}", params)

    async def usage(
        self,
        *,
        user_id: Id | None = None,
        organization_id: Id | None = None,
        usage_type: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        page_size: int = 1000,
    ) -> AsyncIterator[UsageRecord]:
        """Recorded usage in ``[since, until)``, newest first, fetched page by page.

        A user or an organisation is needed. The newest records take about a second to appear.
        """
        query = usage_query(user_id, organization_id, usage_type, since, until, page_size)
        while True:
            page = await self.usage_page(query)
            for record in page.data:
                yield record
            if not (page.has_more and page.data):
                return
            query["starting_after"] = str(page.data[-1].usage_id)

    def meter(
        self,
        *,
        user_id: Id,
        usage_type: str,
        unit_seconds: int = 60,
        decimals: int = 2,
        organization_id: Id | None = None,
        metadata: Mapping[str, str] | None = None,
        key: str | None = None,
        clock: Clock | None = None,
    ) -> Meter:
        """Records how long a block took, also when it raises: ``async with billing.meter(...)``.

        One unit is `unit_seconds` long; the quantity is rounded up to `decimals` places, which
        must not be more than the usage type has. `clock` gives nanoseconds that never go back.
        """

        async def record(quantity: Decimal, key: str) -> Recorded:
            return await self.record(
                user_id=user_id,
                usage_type=usage_type,
                quantity=quantity,
                organization_id=organization_id,
                metadata=metadata,
                key=key,
            )

        return Meter(record, unit_seconds, decimals, clock, key)

    async def usage_page(self, query: Mapping[str, str]) -> UsagePage:
        """One page of `usage`, for a query as the API has it."""
        call = self._call(lambda answer: UsagePage.read(answer.document))
        return await self._answered(call, "GET", "/usage", query)

    def _call(
        self, read: Callable[[Answer], T], *, body: bytes | None = None, key: str | None = None
    ) -> Call[T]:
        return Call(read, self._sender.deadline(), body=body, key=key)

    async def _answered(
        self, call: Call[T], method: str, path: str, params: Mapping[str, str] | None = None
    ) -> T:
        async def send(_: Sequence[Call[Any]], seconds: float) -> list[Answer]:
            said = await self._http.attempt(method, path, seconds, body=call.body, params=params)
            return [said]

        with self._counted():
            await self._sender.settle([call], send)
        return call.future.result()

    async def _post_batch(self, body: bytes, seconds: float) -> Answer:
        return await self._http.attempt("POST", "/usage/batch", seconds, body=body)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """A call that `close` waits for."""
        if self._closed:
            raise RuntimeError("the billing client is closed")
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()


def _read_recorded(answer: Answer) -> Recorded:
    return Recorded.read(answer.document, answer.replayed)


def _read_corrected(answer: Answer) -> Corrected:
    return Corrected.read(answer.document, answer.replayed)
