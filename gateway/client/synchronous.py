"""The same calls for code without asyncio."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self, TypeVar

from gateway.client.asynchronous import BillingClient
from gateway.client.batching import Batching
from gateway.client.metering import Clock, SyncMeter
from gateway.client.results import Checked, Corrected, Quotas, Recorded, UsageRecord
from gateway.client.sending import Retrying
from gateway.client.transport import Token
from gateway.client.usage import Id, Quantity, usage_query

T = TypeVar("T")


class SyncBillingClient:
    """`BillingClient` on an event loop in a thread of its own: the same arguments, results and
    errors, and any number of threads may share it (with `batch`, their records travel together).

    One per process: make it after a fork, not before. Not for use inside coroutines, where it
    would block the event loop.
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
        self._client = BillingClient(
            url, token, batch=batch, retrying=retrying, connections=connections
        )
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        # A daemon, so that a client that was never closed does not keep the process alive.
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="billing-client", daemon=True
        )
        self._thread.start()

    def __repr__(self) -> str:
        return f"Sync{self._client!r}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Takes no more calls, waits for those of other threads, ends the thread."""
        if self._forked:
            return  # the thread is in the parent, which closes it
        with self._lock:
            if self._closed:
                return
            self._closed = True
            closing = asyncio.run_coroutine_threadsafe(self._client.close(), self._loop)
        try:
            closing.result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def record(
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
        """See `BillingClient.record`."""
        return self._run(
            self._client.record(
                user_id=user_id,
                usage_type=usage_type,
                quantity=quantity,
                organization_id=organization_id,
                metadata=metadata,
                occurred_at=occurred_at,
                key=key,
            )
        )

    def correct(
        self, usage_id: Id, *, quantity: Quantity, reason: str, key: str | None = None
    ) -> Corrected:
        """See `BillingClient.correct`."""
        return self._run(self._client.correct(usage_id, quantity=quantity, reason=reason, key=key))

    def check(
        self,
        *,
        user_id: Id,
        usage_type: str,
        quantity: Quantity,
        organization_id: Id | None = None,
    ) -> Checked:
        """See `BillingClient.check`."""
        return self._run(
            self._client.check(
                user_id=user_id,
                usage_type=usage_type,
                quantity=quantity,
                organization_id=organization_id,
            )
        )

    def quota(self, user_id: Id, *, organization_id: Id | None = None) -> Quotas:
        """See `BillingClient.quota`."""
        return self._run(self._client.quota(user_id, organization_id=organization_id))

    def usage(
        self,
        *,
        user_id: Id | None = None,
        organization_id: Id | None = None,
        usage_type: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        page_size: int = 1000,
    ) -> Iterator[UsageRecord]:
        """See `BillingClient.usage`."""
        query = usage_query(user_id, organization_id, usage_type, since, until, page_size)
        while True:
            page = self._run(self._client.usage_page(query))
            yield from page.data
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
    ) -> SyncMeter:
        """See `BillingClient.meter`; here ``with billing.meter(...)``."""

        def record(quantity: Decimal, key: str) -> Recorded:
            return self.record(
                user_id=user_id,
                usage_type=usage_type,
                quantity=quantity,
                organization_id=organization_id,
                metadata=metadata,
                key=key,
            )

        return SyncMeter(record, unit_seconds, decimals, clock, key)

    @property
    def _forked(self) -> bool:
        return os.getpid() != self._process

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        if self._forked:
            call.close()
            raise RuntimeError("the billing client was made before a fork; make one per process")
        with self._lock:
            if self._closed:
                call.close()
                raise RuntimeError("the billing client is closed")
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupted thread stops its call; nothing when it has ended
            raise
