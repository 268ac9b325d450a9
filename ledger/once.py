"""A change that is asked for again under its idempotency key is not made again.

The key and what was answered are written in the transaction of the change: there is neither without
the other. Kept for ever; a change that was refused leaves none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import msgspec

from ledger import store
from ledger.db import Executor


class Once(msgspec.Struct, frozen=True):
    """Whose key it is, and what was asked under it. `told` says in text, by the change's own
    transaction, what the change is answered with."""

    caller: str
    key: str
    fingerprint: bytes
    told: Callable[[Executor, Any], Awaitable[str]]


class Replayed(Exception):
    """The change was made before; `answer` is what was told then."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer = answer


class KeyReused(Exception):
    """The key was used for another change."""


async def claim(db: Executor, once: Once | None, now: datetime) -> None:
    """First in the transaction that makes a change; waits for one that makes it just now. Raises
    `Replayed`, `KeyReused`."""
    if once is None:
        return
    if await store.control_keys.insert(db, once.caller, once.key, once.fingerprint, now):
        return
    fingerprint, answer = await store.control_keys.find(db, once.caller, once.key)
    if fingerprint != once.fingerprint:
        raise KeyReused
    raise Replayed(answer)


async def keep(db: Executor, once: Once | None, result: Any) -> None:
    """Last in that transaction."""
    if once is not None:
        answer = await once.told(db, result)
        await store.control_keys.answered(db, once.caller, once.key, answer)
