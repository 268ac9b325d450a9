"""A usage event on its way: payload and terms in the stream entry, record in the ledger."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from uuid import UUID

import msgspec

from ledger.domain.period import Interval, period_at
from ledger.domain.quantity import MAX_UNITS
from lua.packing import NONE, Counted, unpack_counted, unpack_said

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_HOUR_MS = 3_600_000
FINGERPRINT_BYTES = 8
# A usage record can only lie near the present; this keeps every date below within the calendar.
_EARLIEST_MS, _LATEST_MS = 0, 7_258_118_400_000  # 1970 to 2200


def at_ms(ms: int) -> datetime:
    """The instant of integer milliseconds since 1970 (exact: no float on the way)."""
    return _EPOCH + timedelta(milliseconds=ms)


def ms_of(instant: datetime) -> int:
    return (instant - _EPOCH) // _MILLISECOND


class BadEntry(ValueError):
    """A stream entry that cannot become a row; the message says what is wrong with it."""


class Payload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the caller said beyond the counted part; scripts pass it on unread."""

    idempotency_key: str | None
    occurred_at: int | None  # ms
    metadata: dict[str, str] | None
    recorded_by: str
    reversal_of: bytes | None = None


class Terms(msgspec.Struct, frozen=True, array_like=True):
    """Who pays and under which plan, as of the load; travels in every entry so that the drain
    needs no look-up and a later plan change cannot re-price what was admitted before it."""

    subscription_id: bytes | None
    plan_tier: str
    plan_version: int
    anchor: int  # ordinal of the local date that periods are counted from
    interval: Interval
    timezone: str


class UsageRecord(msgspec.Struct, frozen=True, gc=False):
    """One row to be; quantities in units of the usage type, ids as raw UUID bytes."""

    stream_id: str
    usage_id: bytes
    fingerprint: bytes
    user_id: bytes
    organization_id: bytes | None
    usage_type: str
    units: int
    recorded_at: int  # ms
    occurred_at: int  # ms
    billing_period: date
    quota_period: int  # ms
    pool_period: int | None  # ms
    used_after: int | None  # None: a correction that no counter in Redis knows of
    pool_used_after: int | None
    remaining: int | None
    exceeded: bool
    enforced: bool
    terms: Terms
    payload: Payload

    @property
    def counted(self) -> tuple[tuple[str, int], ...]:
        """The quotas this record was counted against: subject as `usage_totals` names it, and
        the start of that quota's period."""
        user = f"user:{UUID(bytes=self.user_id)}"
        if self.organization_id is None or self.pool_period is None:
            return ((user, self.quota_period),)
        pool = f"org:{UUID(bytes=self.organization_id)}"
        return ((f"{pool}:{user}", self.quota_period), (pool, self.pool_period))


class Count(msgspec.Struct, frozen=True):
    """What Redis counted for an entry: in units, against the quotas of `who` and its pool that
    began at these times (ms)."""

    who: bytes
    usage_type: str
    units: int
    quota_period: int
    pool_period: int | None


_payload = msgspec.msgpack.Decoder(Payload)
_terms = msgspec.msgpack.Decoder(Terms)
_encode = msgspec.msgpack.Encoder().encode
_WHO = ((b"u", 17), (b"o", 33))  # kind and length
_USAGE_TYPE = re.compile(rb"[a-z][a-z0-9_]{0,49}\Z")


def encode_payload(payload: Payload) -> bytes:
    return _encode(payload)


def encode_terms(terms: Terms) -> bytes:
    return _encode(terms)


def fingerprint(
    who: bytes,
    usage_type: str,
    units: int,
    occurred_at: int | None,
    metadata: Mapping[str, str] | None,
) -> bytes:
    """Tells a retry from another request under the same key: a hash of what the parsed body
    means, so that key order, white space and 1.0 for 1 do not matter."""
    said: tuple[Any, ...] = (who, usage_type, units, occurred_at, sorted((metadata or {}).items()))
    return blake2b(_encode(said), digest_size=FINGERPRINT_BYTES).digest()


def parse_entry(stream_id: str, fields: Mapping[str, bytes]) -> UsageRecord:
    """The record of a usage entry. Raises `BadEntry`."""
    try:
        said, quota = unpack_said(fields["event"]), _counted(fields["quota"])
        who, kind = said.who, said.who[:1]
        if (kind, len(who)) not in _WHO:
            raise BadEntry("who is malformed")
        terms = _terms_of(fields["terms"])
        payload = _payload.decode(said.payload)
        uncounted = payload.reversal_of is not None  # perhaps: its quota may not have been loaded
        recorded = _instant(quota.recorded_at)
        occurred = recorded if payload.occurred_at is None else _instant(payload.occurred_at)
        if b"\0" in said.payload:  # in a text, or only in a number
            _storable(payload)
        return UsageRecord(  # by place: names would take a sixth of an entry's time
            stream_id,
            said.usage_id,
            said.fingerprint,
            who[-16:],  # user_id
            who[1:17] if kind == b"o" else None,  # organization_id
            _usage_type(said.usage_type),
            quota.units,
            recorded,
            occurred,
            _stated(fields["period"]) if "period" in fields else _billing_period(terms, occurred),
            _instant(quota.starts),
            _pool_period(quota),
            None if uncounted and quota.used == NONE else quota.used,
            None
            if quota.pool_starts == NONE or (uncounted and quota.pool_used == NONE)
            else quota.pool_used,
            None if quota.remaining == NONE else quota.remaining,
            quota.exceeded == 1,
            quota.enforced == 1,
            terms,
            payload,
        )
    except KeyError as missing:
        raise BadEntry(f"field {missing} is missing") from None
    except (ValueError, OverflowError, OSError, RecursionError, msgspec.MsgspecError) as error:
        # OSError: a time zone's name becomes a path
        raise BadEntry(str(error)[:200]) from error


def count_of(fields: Mapping[str, bytes]) -> Count | None:
    """What counts of an entry although it may not become a record: all that the load script reads.
    None of bytes that no script has written, which count nowhere."""
    try:
        said, quota = unpack_said(fields["event"]), _counted(fields["quota"])
        if (said.who[:1], len(said.who)) not in _WHO:
            return None
        return Count(
            who=said.who,
            usage_type=_usage_type(said.usage_type),
            units=quota.units,
            quota_period=_instant(quota.starts),
            pool_period=_pool_period(quota),
        )
    except (KeyError, ValueError):
        return None


def _pool_period(quota: Counted) -> int | None:
    return None if quota.pool_starts == NONE else _instant(quota.pool_starts)


def _counted(raw: bytes) -> Counted:
    counted = unpack_counted(raw)
    units, _, _, _, used, pool_used, remaining, exceeded, enforced = counted
    whole = -MAX_UNITS <= used <= MAX_UNITS and -MAX_UNITS <= pool_used <= MAX_UNITS
    if not whole or not -MAX_UNITS <= units <= MAX_UNITS or not units:
        raise BadEntry("a quantity is out of range")
    if remaining < NONE or exceeded > 1 or enforced > 1:
        raise BadEntry("quota field is malformed")
    return counted


def _instant(ms: int) -> int:
    if not _EARLIEST_MS <= ms <= _LATEST_MS:
        raise BadEntry("an instant is out of range")
    return ms


@lru_cache(maxsize=256)
def _usage_type(raw: bytes) -> str:
    if not _USAGE_TYPE.match(raw):
        raise BadEntry("type is malformed")
    return raw.decode()


def _storable(payload: Payload) -> None:
    """What Postgres would refuse as text, and the whole batch with it."""
    said = payload.recorded_by + (payload.idempotency_key or "")
    for name, value in (payload.metadata or {}).items():
        said += name + value
    if "\x00" in said:
        raise BadEntry("text with a NUL character")


def _stated(raw: bytes) -> date:
    """The billing period that a correction has from what it corrects: the subscription may count
    its periods from another day since."""
    return date.fromordinal(int(raw))


def _billing_period(terms: Terms, occurred_at: int) -> date:
    hour = occurred_at // _HOUR_MS
    found, ends = _period_in_hour(terms.anchor, terms.interval, terms.timezone, hour)
    if occurred_at < ends:
        return found
    # Within this hour one ends and another begins.
    anchor = date.fromordinal(terms.anchor)
    return period_at(at_ms(occurred_at), anchor, terms.interval, terms.timezone).billing_date


@lru_cache(maxsize=4096)  # a quarter of the time that an entry takes
def _period_in_hour(anchor: int, interval: Interval, timezone: str, hour: int) -> tuple[date, int]:
    """The period in which an hour begins: its billing date, and when it ends (ms)."""
    period = period_at(at_ms(hour * _HOUR_MS), date.fromordinal(anchor), interval, timezone)
    return period.billing_date, ms_of(period.end)


@lru_cache(maxsize=4096)  # all entries of an account under one plan have the same
def _terms_of(raw: bytes) -> Terms:
    return _terms.decode(raw)
