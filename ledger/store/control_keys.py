"""Idempotency keys of changes, and what was answered under each."""

from __future__ import annotations

from datetime import datetime

from ledger.db import Executor
from ledger.store.queries import QUERIES


async def insert(db: Executor, caller: str, key: str, fingerprint: bytes, now: datetime) -> bool:
    """Whether the caller had not used it; waits for a transaction that is just using it."""
    found = await db.fetchval(QUERIES["insert_control_key"], caller, key, fingerprint, now)
    return found is not None


async def find(db: Executor, caller: str, key: str) -> tuple[bytes, str]:
    """What was asked under a key that was used, and what was answered."""
    row = await db.fetchrow(QUERIES["control_key"], caller, key)
    return row["fingerprint"], row["answer"]


async def answered(db: Executor, caller: str, key: str, answer: str) -> None:
    """In the transaction that used it."""
    await db.execute(QUERIES["answer_control_key"], caller, key, answer)
