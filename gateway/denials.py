"""Denied access, for the audit trail: counted at once, written a little later.

A denial never waits for Postgres, and no flood of them fills it: in each window at most `KINDS`
events and one for all others of a caller, of at most `CALLERS` callers and one for all others.
Whoever has no valid token is one caller. Each event says how many denials it stands for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

import structlog

from gateway.auth import Principal
from ledger import clock, db, store
from ledger.domain.audit import instant

log = structlog.get_logger()

WINDOW_S = 10  # what a process that is killed forgets
CLOSE_S = 2  # for the last of them, when Postgres is slow
KINDS = 3  # of route and status, told apart for one caller in a window
CALLERS = 16
_UNKNOWN = "unknown"  # no token, or none that is valid
_OTHERS = "others"


class _Denial(NamedTuple):
    actor: str
    route: str
    status: int | None


class _Count:
    def __init__(self, at: datetime) -> None:
        self.first, self.last, self.times = at, at, 0


class Denials:
    def __init__(self, pool: db.Pool, now: Callable[[], datetime] = clock.now) -> None:
        self._pool = pool
        self._now = now
        self._counts: dict[_Denial, _Count] = {}

    def note(self, principal: Principal | None, route: str, status: int) -> None:
        """A request was refused because of who asked. Nothing of the request is kept."""
        actor = _UNKNOWN if principal is None else principal.subject
        count = self._room_for(_Denial(actor, route, status), self._now())
        count.last = self._now()
        count.times += 1

    async def for_ever(self) -> None:
        while True:
            await asyncio.sleep(WINDOW_S)
            await self.flush()

    async def flush(self) -> None:
        """Writes what was counted; what cannot be written is kept for the next time."""
        counts, self._counts = self._counts, {}
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                for denial, count in counts.items():
                    await store.insert_audit_event(
                        connection,
                        "access_denied",
                        denial.actor,
                        _details(denial, count),
                        count.first,
                    )
        except (*db.UNAVAILABLE, db.PostgresError, asyncio.CancelledError) as error:
            for denial, count in counts.items():
                kept = self._room_for(denial, count.first)
                kept.first, kept.last = min(kept.first, count.first), max(kept.last, count.last)
                kept.times += count.times
            if isinstance(error, asyncio.CancelledError):
                raise
            log.warning("denials_waiting", reason=type(error).__name__)

    async def close(self) -> None:
        """Writes the rest, if Postgres takes it soon."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.flush()

    def _room_for(self, denial: _Denial, at: datetime) -> _Count:
        """Where this one is counted: by itself, or among others when there are too many kinds."""
        if denial not in self._counts:
            kinds = sum(one.actor == denial.actor for one in self._counts)
            if not kinds and len({one.actor for one in self._counts}) >= CALLERS:
                denial = _Denial(_OTHERS, _OTHERS, None)
            elif kinds >= KINDS:
                denial = _Denial(denial.actor, _OTHERS, None)
        return self._counts.setdefault(denial, _Count(at))


def _details(denial: _Denial, count: _Count) -> dict[str, object]:
    return {
        "route": denial.route,
        "status": denial.status,
        "count": count.times,
        "first_at": instant(count.first),
        "last_at": instant(count.last),
    }
