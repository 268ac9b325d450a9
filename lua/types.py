"""What goes into the scripts and what comes out of them."""

from __future__ import annotations

import enum
from typing import Any

import msgspec


class Outcome(enum.IntEnum):
    """What became of one usage event; the numbers are those of ``record.lua``."""

    RECORDED = 0
    REPLAYED = 1
    CONFLICT = 2
    DENIED = 3
    RATE_LIMITED = 4
    MISS = 5
    FULL = 6
    LOOK_UP = 7
    UNTIMELY = 8
    OVERFLOW = 9
    BLOCKED = 10
    FENCED = 11
    ALLOWED = 0  # what check.lua says where record.lua would record


class LookedUp(enum.IntEnum):
    """Whether the ledger was asked about an idempotency key Redis does not remember."""

    NOT_YET = 0
    UNKNOWN = 1
    UNREACHABLE = 2


class Missing(enum.IntFlag):
    """Which quota hashes must be loaded before the event can be decided."""

    NONE = 0
    USER = 1
    POOL = 2


class LoadOutcome(enum.IntEnum):
    LOADED = 0
    FENCED = 1
    RETRY = 2


class SupersedeOutcome(enum.IntEnum):
    SUPERSEDED = 0
    FENCED = 1
    EARLY = 2


class UnloadOutcome(enum.IntEnum):
    UNLOADED = 0
    FENCED = 1


class TallyOutcome(enum.IntEnum):
    """RETRY: the snapshot is too old, or too many entries came since they were read."""

    TALLIED = 0
    FENCED = 1
    RETRY = 2


class RecoveryOutcome(enum.IntEnum):
    """WHOLE: vouched for. LOST: a new epoch began. SUPERSEDED: this server belongs to a history
    that the ledger has left behind, or never knew."""

    WHOLE = 0
    LOST = 1
    SUPERSEDED = 2


class Event(msgspec.Struct, frozen=True):
    """One usage event as the record script takes it."""

    partition: int
    who: bytes
    usage_id: bytes
    fingerprint: bytes  # 8 bytes, or empty without idempotency key
    usage_type: str
    units: int
    occurred_at: int | None  # ms
    payload: bytes
    looked_up: LookedUp = LookedUp.NOT_YET


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """One event's answer; `starts`, `ends` and `recorded_at` in ms of the service's clock."""

    outcome: Outcome
    recorded_at: int = 0
    remaining: int | None = None
    exceeded: int = 0
    scope: int = 0
    limit: int = 0
    starts: int = 0
    ends: int = 0
    detail: Any = None


class CheckAnswer(msgspec.Struct, array_like=True, frozen=True):
    outcome: Outcome
    remaining: int | None = None
    scope: int = 0
    limit: int = 0
    starts: int = 0
    ends: int = 0
    detail: Any = None


class Fenced(Exception):
    """This Redis has not been vouched for since it last restarted: recovery must run first."""


class Recorded(msgspec.Struct, frozen=True):
    """Answers in the order of the events, and the last entry appended to each partition."""

    answers: list[Answer]
    last_ids: dict[int, str]


class Checked(msgspec.Struct, frozen=True):
    now: int
    answer: CheckAnswer


class QuotaHashes(msgspec.Struct, frozen=True):
    now: int
    missing: Missing
    user: dict[str, bytes]
    pool: dict[str, bytes]


class Limit(msgspec.Struct, frozen=True):
    """One usage type's rule and starting count in a quota hash (all in units)."""

    usage_type: str
    enforcement: str  # h, s, w, x or n, as include/quota.lua explains
    limit: int | None  # None: unlimited
    rate_limit: int  # units; 0 for none
    rate_window_us: int
    used: int
    rollover: int = 0  # how much of `limit` was left over of the last period


class Tail(msgspec.Struct, frozen=True):
    """Entries after a cursor, and what the drain checks first. `floor`: last id ever trimmed."""

    replid: str
    epoch: int
    floor: str
    last_id: str
    entries: list[tuple[str, dict[str, bytes]]]


class Tally(msgspec.Struct, frozen=True):
    """Entries after those already read; a quota's fields, or none when it is not in use."""

    entries: list[tuple[str, dict[str, bytes]]]
    quotas: list[dict[str, bytes]]


class Recovery(msgspec.Struct, frozen=True):
    outcome: RecoveryOutcome
    epoch: int
    replid: str
    last_id: str
