"""What the auth service said of a token, remembered for a short time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from gateway.auth.claims import Claims
from gateway.auth.service import DEADLINE_S, Silent, silent
from gateway.known import Unknown
from ledger import clock
from ledger.flights import SingleFlight

REMEMBERED_S = 60  # a token that is revoked is good for as long at most
REFUSED_S = 10  # who sends a bad one again and again has it asked for this often
MOST = 10_000
AT_ONCE = 16  # requests to the auth service; the others wait, and are answered 503 in time


class Told(NamedTuple):
    """`claims` are None when the token is not good. `until` is a time of `clock.monotonic`."""

    claims: Claims | None
    until: float


class Asked:
    """One question of each token at a time, and few of all."""

    def __init__(self, ask: Callable[[str], Awaitable[Claims | None]]) -> None:
        self._ask = ask
        self._told: dict[str, Told] = {}
        self._flights = SingleFlight()
        self._turns = asyncio.Semaphore(AT_ONCE)

    def known(self, token: str) -> Told | None:
        """None when it has to be asked first."""
        told = self._told.get(token)
        return told if told is not None and told.until > clock.monotonic() else None

    def unknown(self, token: str) -> Unknown:
        """To be raised: it asks when it is awaited, and raises the problem when it cannot."""
        return Unknown(partial(self._flights.run, token, partial(self._learn, token)))

    async def _learn(self, token: str) -> None:
        began = clock.monotonic()
        try:
            async with asyncio.timeout(DEADLINE_S), self._turns:
                claims = await self._ask(token)
        except (Silent, TimeoutError):
            raise silent() from None
        self._told.pop(token, None)
        if len(self._told) >= MOST:
            del self._told[next(iter(self._told))]  # the oldest
        until = began + (REFUSED_S if claims is None else REMEMBERED_S)
        self._told[token] = Told(claims, until)
