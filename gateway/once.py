"""`Idempotency-Key` of changes by finance: a retry is answered as the first time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import msgspec

from gateway.auth import Principal
from gateway.problems import Kind, Problem
from gateway.usage import idempotency_key
from ledger.db import Executor
from ledger.once import Once, Replayed

Answer = tuple[bytes, dict[str, str]]
"""A body and its headers."""


def asked_once(
    principal: Principal,
    header: str | None,
    *request: Any,
    told: Callable[[Executor, Any], Awaitable[Answer]],
) -> Once | None:
    """The key of a request, which is all that decides what is done; None without a key."""
    try:
        key = idempotency_key(header)
    except Problem as problem:
        if problem.kind is Kind.PHI_REJECTED:
            raise
        raise Problem(Kind.INVALID_REQUEST, problem.detail) from None
    if key is None:
        return None

    async def kept(db: Executor, result: Any) -> str:
        body, headers = await told(db, result)
        return msgspec.json.encode((body.decode(), headers)).decode()

    return Once(principal.subject, key, sha256(msgspec.json.encode(request)).digest(), kept)


def replay(replayed: Replayed) -> Answer:
    body, headers = msgspec.json.decode(replayed.answer, type=tuple[str, dict[str, str]])
    return body.encode(), {**headers, "Idempotent-Replayed": "true"}


def key_reused() -> Problem:
    return Problem(
        Kind.IDEMPOTENCY_KEY_REUSE, "this idempotency key was used before with another body"
    )
