"""Bytes that the scripts and Python share, one layout each; a test holds both sides together.

Packed, because every argument of a call, field of a hash and number of an answer costs Redis time:
together a quarter of the record script's instructions (docs/performance.md).
"""

from __future__ import annotations

from functools import cache
from struct import Struct
from typing import NamedTuple

# What decides an event: places of partition, user and pool; looked_up, timed, units, occurred_at.
DECISION = Struct(">HHHBBqq")
# How an event was counted; see `Counted`.
COUNTED = Struct(">qQQqqqqBB")
# outcome, recorded_at, remaining, exceeded, scope, limit, starts, ends; a detail comes beside it.
ANSWER = Struct(">BQqBBQQQ")
# The front of a quota's state: epoch, starts, ends, good_until, seen_at, pool_version, length of
# `blocked`, which follows.
STATE = Struct(">QQQQQQB")
# A usage type's rule in a quota: enforcement letter, limit, units and microseconds of its window.
# Where some of the limit was left over of the last period, how much follows, which no script reads.
RULE = Struct(">cqQQ")
_ROLLOVER = Struct(">Q")
NONE = -1  # no limit, no pool, nothing remaining to show
ID_BYTES = 16


class Malformed(ValueError):
    """Bytes that no script and no gateway wrote."""


class Said(NamedTuple):
    """What the caller said, as it goes to the script and from there into the entry: the id, then
    fingerprint, usage type and who, each after a byte of its length; the rest is the payload
    (msgpack, `ledger.domain.usage.Payload`), which no script reads. `who` is 'u' and the user, or
    'o', organisation and user, in raw UUID bytes."""

    usage_id: bytes
    fingerprint: bytes
    usage_type: bytes
    who: bytes
    payload: bytes


class Counted(NamedTuple):
    """What the script found, in an entry; `NONE` where there is no pool or limit. Times in ms,
    quantities in units."""

    units: int
    recorded_at: int
    starts: int
    pool_starts: int
    used: int
    pool_used: int
    remaining: int
    exceeded: int
    enforced: int


class State(NamedTuple):
    """The part of a quota that all its usage types share. Times in ms; `good_until`, at most
    `ends`, is when its terms must be looked up again, `pool_version` that of the organisation's
    terms it was loaded under, `blocked` the reason why usage is refused, or empty."""

    epoch: int
    starts: int
    ends: int
    good_until: int
    seen_at: int
    pool_version: int
    blocked: str


class Rule(NamedTuple):
    """A usage type in a quota, in units; the letters are explained in include/quota.lua. No limit:
    None; no rate window: 0."""

    enforcement: str
    limit: int | None
    rate_limit: int
    rate_window_us: int
    rollover: int = 0


_LENGTHS = [bytes((length,)) for length in range(256)]  # made once: three are needed an event


def pack_said(
    usage_id: bytes, fingerprint: bytes, usage_type: str, who: bytes, payload: bytes
) -> bytes:
    """The bytes of a `Said`."""
    print_length, who_length = _LENGTHS[len(fingerprint)], _LENGTHS[len(who)]
    parts = (usage_id, print_length, fingerprint, _name(usage_type), who_length, who, payload)
    return b"".join(parts)


@cache
def _name(usage_type: str) -> bytes:
    raw = usage_type.encode()
    return _LENGTHS[len(raw)] + raw


def unpack_said(raw: bytes) -> Said:
    """Raises `Malformed`."""
    try:
        type_at = ID_BYTES + 1 + raw[ID_BYTES]
        who_at = type_at + 1 + raw[type_at]
        payload_at = who_at + 1 + raw[who_at]
    except IndexError:
        payload_at = len(raw) + 1
    if payload_at > len(raw):
        raise Malformed("event field is cut off")
    return Said(
        raw[:ID_BYTES],
        raw[ID_BYTES + 1 : type_at],
        raw[type_at + 1 : who_at],
        raw[who_at + 1 : payload_at],
        raw[payload_at:],
    )


def unpack_counted(raw: bytes) -> Counted:
    """Raises `Malformed`."""
    if len(raw) != COUNTED.size:
        raise Malformed("quota field is malformed")
    return Counted(*COUNTED.unpack(raw))


def unpack_state(raw: bytes) -> State:
    epoch, starts, ends, good_until, seen_at, pool_version, _ = STATE.unpack_from(raw)
    blocked = raw[STATE.size :].decode()
    return State(epoch, starts, ends, good_until, seen_at, pool_version, blocked)


def pack_rule(
    enforcement: str, limit: int | None, rate_limit: int, rate_window_us: int, rollover: int = 0
) -> bytes:
    most = NONE if limit is None else limit
    rule = RULE.pack(enforcement.encode(), most, rate_limit, rate_window_us)
    return rule + _ROLLOVER.pack(rollover) if rollover else rule


def unpack_rule(raw: bytes) -> Rule:
    letter, limit, rate_limit, rate_window_us = RULE.unpack_from(raw)
    more = raw[RULE.size :]
    rollover = _ROLLOVER.unpack(more)[0] if more else 0
    most = None if limit == NONE else limit
    return Rule(letter.decode(), most, rate_limit, rate_window_us, rollover)
