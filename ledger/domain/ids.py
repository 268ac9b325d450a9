"""Identifiers that must come out the same wherever they are made."""

from __future__ import annotations

import os
from uuid import UUID, uuid5

# Fixed for ever: another namespace would let an old idempotency key count again.
_USAGE = UUID("6b1f3f0e-5d0b-5c53-9d3f-2f0c4c6f7a10")
_DEV_USERS = UUID("f3f3a7f4-9a0c-5f4e-8a52-0d6f6f0f1c22")


def usage_id_for_key(user_id: UUID, idempotency_key: str) -> UUID:
    """UUIDv5 of user and key, length-prefixed so that no two pairs share a name.

    Independent of organisation and partition: a retry is the same unit wherever it lands.
    """
    user = str(user_id)
    return uuid5(_USAGE, f"{len(user)}:{user}:{len(idempotency_key)}:{idempotency_key}")


def usage_id_without_key(now_ms: int) -> UUID:
    """UUIDv7 (RFC 9562): time-ordered, so that index inserts stay local."""
    random = int.from_bytes(os.urandom(10), "big")
    value = (now_ms & (2**48 - 1)) << 80 | 0x7 << 76 | (random >> 62 & 0xFFF) << 64
    return UUID(int=value | 0b10 << 62 | random & (2**62 - 1))


def dev_uuid(text: str) -> UUID:
    """The UUID itself, or a stable UUIDv5 for a readable name such as ``test-user``.

    Only for the dev environment, where the spec's own examples must work as printed.
    """
    try:
        return UUID(text)
    except ValueError:
        return uuid5(_DEV_USERS, text)
