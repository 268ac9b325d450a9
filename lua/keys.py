"""Key names. Every key carries the hash tag of its partition, so that a partition is one slot."""

from __future__ import annotations

from functools import cache, lru_cache
from uuid import UUID
from zlib import crc32

import msgspec


class Account(msgspec.Struct, frozen=True):
    """Who is charged: a user, or a user within an organisation (whose pool is shared).

    The partition depends on the organisation alone when there is one, so that a pool and all
    its users' caps are decided in one script.
    """

    user_id: UUID
    organization_id: UUID | None = None

    @property
    def who(self) -> bytes:
        """The subject whose user cap applies, as stream entries name it."""
        if self.organization_id is None:
            return b"u" + self.user_id.bytes
        return b"o" + self.organization_id.bytes + self.user_id.bytes


def pool_of(who: bytes) -> bytes | None:
    """The pool a subject shares; None for a personal account."""
    return who[:17] if who[:1] == b"o" else None


def subjects_of(who: bytes) -> tuple[bytes, ...]:
    """The subjects whose quotas count what `who` uses: its own, and the pool's if it shares one."""
    pool = pool_of(who)
    return (who,) if pool is None else (who, pool)


def ids_of(subject: bytes) -> tuple[UUID | None, UUID | None]:
    """User and organisation of a subject; no user: a pool."""
    user_id = None if is_pool(subject) else UUID(bytes=subject[-16:])
    return user_id, UUID(bytes=subject[1:17]) if subject[:1] == b"o" else None


def is_pool(subject: bytes) -> bool:
    return subject[:1] == b"o" and len(subject) == 17


def tenant_of(subject: bytes) -> bytes:
    """The organisation of a subject, or the user of a personal account."""
    return subject[:17]


def partition_of(subject: bytes, partitions: int) -> int:
    """The partition of a subject: of its organisation when it has one."""
    return crc32(tenant_of(subject)) % partitions


def subject_text(subject: bytes) -> str:
    """A subject in words, as keys and ledger tables name it."""
    first = uuid_text(subject[1:17])
    if subject[:1] == b"u":
        return f"user:{first}"
    if len(subject) == 17:
        return f"org:{first}"
    return f"org:{first}:user:{uuid_text(subject[17:33])}"


def subject_of(text: str) -> bytes:
    """The subject that `subject_text` put into words."""
    first, _, user = text.partition(":user:")
    kind, _, identifier = first.partition(":")
    raw = (b"u" if kind == "user" else b"o") + UUID(identifier).bytes
    return raw + UUID(user).bytes if user else raw


def uuid_text(raw: bytes) -> str:
    """The usual text of a UUID's 16 bytes."""
    digits = raw.hex()  # a UUID object would take three times as long, twice per event
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def before(a: str, b: str) -> bool:
    """Whether one stream id comes before another."""
    return tuple(map(int, a.split("-"))) < tuple(map(int, b.split("-")))


@cache
def of_partition(partition: int) -> tuple[str, str, str]:
    """Stream, meta and receipts, as the record script takes them."""
    return stream(partition), meta(partition), receipts(partition)


def stream(partition: int) -> str:
    return f"usage:{{p{partition:02d}}}"


def meta(partition: int) -> str:
    return f"meta:{{p{partition:02d}}}"


def receipts(partition: int) -> str:
    """Prefix of the receipt hashes; the scripts add day and shard."""
    return f"receipt:{{p{partition:02d}}}:"


@lru_cache(maxsize=16_384)  # of those in use; a name takes as long as the rest of an event's call
def quota(partition: int, subject: bytes) -> str:
    return quota_named(partition, subject_text(subject))


def quota_named(partition: int, subject: str) -> str:
    """The quota of a subject in words."""
    return f"quota:{{p{partition:02d}}}:{subject}"
