"""What this process has answered for, asked of each Redis that it is connected to anew.

A disk may lose what it had confirmed. Only a gateway knows what it has answered; when a ledger, or
another gateway, has the server vouched for first, nobody else would miss it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from ledger import db
from ledger.entitlements import Loader
from ledger.recovery import Superseded
from lua.connection import RedisUnavailable

log = structlog.get_logger()

AGAIN_S = 1.0  # while a server does not answer
LEDGER_S = 10  # for one partition: its row may have to be waited for


class LookBack:
    """`acked`: by partition the last stream id answered for, as it changes."""

    def __init__(self, loader: Loader, acked: Mapping[int, str]) -> None:
        self._loader = loader
        self._acked = acked
        self._to_ask: asyncio.Queue[Mapping[int, str]] = asyncio.Queue()

    def connected(self) -> None:
        """There is a new connection, and nothing has been answered over it yet."""
        if self._acked:
            self._to_ask.put_nowait(dict(self._acked))

    async def for_ever(self) -> None:
        """Asks after each new connection, until cancelled."""
        while True:
            to_ask = await self._to_ask.get()
            silent = {one: to_ask[one] for one in to_ask if not await self._asked(one, to_ask[one])}
            if silent:  # after the others: of a cluster one server may be lost for hours
                self._to_ask.put_nowait(silent)
                await asyncio.sleep(AGAIN_S)

    async def _asked(self, partition: int, acked: str) -> bool:
        try:
            async with asyncio.timeout(LEDGER_S):
                await self._loader.look_back(partition, acked)
        except (RedisUnavailable, *db.UNAVAILABLE, db.PostgresError):
            return False
        except Superseded:
            return True  # logged, and an operator's decision begins a new epoch in any case
        except Exception:  # whatever it is, it must not end the others' turn
            log.exception("look_back_failed", partition=partition)
        return True
