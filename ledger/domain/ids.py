"""Identifiers that must come out the same wherever they are made."""

from __future__ import annotations

import os
from hashlib import sha1
from uuid import UUID, uuid5

import msgspec

# Fixed for ever: another namespace would let an old idempotency key count again.
_USAGE = UUID("6b1f3f0e-5d0b-5c53-9d3f-2f0c4c6f7a10")
_CORRECTIONS = UUID("0d0f8c52-3c0e-5b4f-9a57-5e2f7f1f6b31")
_DEV_USERS = UUID("f3f3a7f4-9a0c-5f4e-8a52-0d6f6f0f1c22")


def usage_id_for_key(user_id: UUID, idempotency_key: str, namespace: UUID = _USAGE) -> bytes:
    """The 16 bytes of a UUIDv5 of user and key. The user's bytes are as many for everyone, so no
    two pairs share a name.

    Independent of organisation and partition: a retry is the same unit wherever it lands. Bytes,
    because a UUID object costs as much as the hash.
    """
    name = namespace.bytes + user_id.bytes + idempotency_key.encode()
    made = bytearray(sha1(name, usedforsecurity=False).digest()[:16])
    made[6] = made[6] & 0x0F | 0x50  # version 5
    made[8] = made[8] & 0x3F | 0x80  # variant of RFC 9562
    return bytes(made)


def correction_id_for_key(user_id: UUID, idempotency_key: str) -> UUID:
    """Apart from the ids of usage: finance does not know which keys the callers of usage chose."""
    return UUID(bytes=usage_id_for_key(user_id, idempotency_key, _CORRECTIONS))


def usage_id_without_key(now_ms: int) -> bytes:
    """The 16 bytes of a UUIDv7 (RFC 9562): time-ordered, so that index inserts stay local."""
    made = bytearray((now_ms & (2**48 - 1)).to_bytes(6, "big") + os.urandom(10))
    made[6] = made[6] & 0x0F | 0x70
    made[8] = made[8] & 0x3F | 0x80
    return bytes(made)


def parse(text: str) -> UUID:
    """The UUID of its usual text. Raises `ValueError`."""
    return msgspec.convert(text, UUID)


def dev_uuid(text: str) -> UUID:
    """The UUID itself, or a stable UUIDv5 for a readable name such as ``test-user``.

    Only for the dev environment, where the spec's own examples must work as printed.
    """
    try:
        return parse(text)
    except ValueError:
        return uuid5(_DEV_USERS, text)
