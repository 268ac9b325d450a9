"""The measured duration of a block, recorded when it ends."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from types import TracebackType
from typing import Self

from gateway.client.results import Recorded
from gateway.client.usage import usage_key

Clock = Callable[[], int]
"""Nanoseconds that never go back."""

_SECOND = 1_000_000_000  # nanoseconds


class _Measurement:
    """What both meters share: the clock and the quantity it gives."""

    def __init__(self, unit_seconds: int, decimals: int, clock: Clock | None, key: str | None):
        if not isinstance(unit_seconds, int) or unit_seconds < 1:
            raise ValueError("unit_seconds must be a whole number of seconds, at least 1")
        if not 0 <= decimals <= 6:
            raise ValueError("decimals must be 0 to 6, as usage types have them")
        self.key = usage_key(key)
        self.quantity: Decimal | None = None
        self.recorded: Recorded | None = None
        self._unit_seconds = unit_seconds
        self._decimals = decimals
        self._clock = clock or time.monotonic_ns
        self._began: int | None = None

    def _start(self) -> None:
        if self._began is not None:
            raise RuntimeError("a meter measures one block")
        self._began = self._clock()

    def _stop(self) -> Decimal:
        """The duration in units, rounded up; at least the smallest step."""
        assert self._began is not None
        elapsed = self._clock() - self._began
        steps = -(-elapsed * 10**self._decimals // (self._unit_seconds * _SECOND))
        self.quantity = Decimal(f"{max(1, steps)}E-{self._decimals}")
        return self.quantity

    def _note(self, failure: Exception) -> str:
        """What is noted on the block's own error, which wins over the failure to record."""
        return f"the usage of this block was not confirmed as recorded: {failure!r}"


class Meter(_Measurement):
    """From `BillingClient.meter`. After the block: `quantity` in units, `recorded` the answer
    (None when recording failed); `key` is the idempotency key, to record again by hand."""

    def __init__(
        self,
        record: Callable[[Decimal, str], Awaitable[Recorded]],
        unit_seconds: int,
        decimals: int,
        clock: Clock | None,
        key: str | None,
    ) -> None:
        super().__init__(unit_seconds, decimals, clock, key)
        self._record = record

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        quantity = self._stop()
        try:
            self.recorded = await self._record(quantity, self.key)
        except Exception as failure:
            if error is None:
                raise
            error.add_note(self._note(failure))


class SyncMeter(_Measurement):
    """From `SyncBillingClient.meter`; like `Meter`."""

    def __init__(
        self,
        record: Callable[[Decimal, str], Recorded],
        unit_seconds: int,
        decimals: int,
        clock: Clock | None,
        key: str | None,
    ) -> None:
        super().__init__(unit_seconds, decimals, clock, key)
        self._record = record

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        quantity = self._stop()
        try:
            self.recorded = self._record(quantity, self.key)
        except Exception as failure:
            if error is None:
                raise
            error.add_note(self._note(failure))
