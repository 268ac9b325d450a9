"""What a seal over a batch of usage records covers: the chain of a partition.

Version 1 covers what is billed of a record; version 2 all of it, and the seal's own place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

import msgspec

from ledger.domain.usage import UsageRecord

FIRST_HEAD = sha256(b"").digest()
VERSION = 2
MARK_BYTES = 8  # enough to tell which record was changed; the head is what holds against forgery
GONE = bytes(MARK_BYTES)  # the mark of a record that a purge took
_encode = msgspec.msgpack.Encoder().encode


class Sealed(NamedTuple):
    """`marks`: the first bytes of each record's hash; empty in version 1."""

    head: bytes
    marks: bytes


def chain_of(partition: int) -> str:
    return f"usage:{partition}"


def seal(
    previous: bytes,
    records: Sequence[UsageRecord],
    *,
    partition: int,
    first: int,
    version: int = VERSION,
) -> Sealed:
    """The next head of a partition's chain, over records at the places from `first` on. Raises
    `KeyError` for a version that there is not."""
    said = [CANONICAL[version](record) for record in records]
    if version == 1:
        return Sealed(sha256(b"".join([previous, *said])).digest(), b"")
    begin = _encode(("billing-seal", version, chain_of(partition), first, len(said), previous))
    marks = b"".join([mark(one) for one in said])
    return Sealed(sha256(b"".join([begin, *said])).digest(), marks)


def seal_left(
    head: bytes,
    left: Mapping[int, UsageRecord],
    *,
    partition: int,
    first: int,
    last: int,
    version: int,
    marks: bytes = b"",
) -> Sealed:
    """What covers the records, by their places, that a purge leaves of a batch: a hash that goes
    on from the batch's own head, and a mark at each place, `GONE` where nothing is left. `marks`
    that were made when the records were sealed go on to count."""
    covered = [left[place] for place in sorted(left)]
    made = seal(head, covered, partition=partition, first=first, version=version)

    def said(place: int) -> bytes:
        if place not in left:
            return GONE
        at = (place - first) * MARK_BYTES
        return marks[at : at + MARK_BYTES] or mark(CANONICAL[version](left[place]))

    return Sealed(made.head, b"".join([said(place) for place in range(first, last + 1)]))


def mark(said: bytes) -> bytes:
    """What tells one record from another, of its canonical bytes."""
    return sha256(said).digest()[:MARK_BYTES]


def canonical(record: UsageRecord) -> bytes:
    """The bytes of a record that a seal covers; rebuilt from its row when the chain is verified."""
    terms, payload = record.terms, record.payload
    metadata = payload.metadata
    return _encode(
        (
            record.stream_id,
            record.usage_id,
            record.user_id,
            record.organization_id,
            record.usage_type,
            record.units,
            record.recorded_at,
            record.occurred_at,
            record.billing_period.isoformat(),
            record.quota_period,
            record.pool_period,
            terms.subscription_id,
            terms.plan_tier,
            terms.plan_version,
            record.used_after,
            record.pool_used_after,
            record.remaining,
            record.exceeded,
            record.enforced,
            sorted(metadata.items()) if metadata else None,
            payload.idempotency_key,
            payload.recorded_by,
            payload.reversal_of,
        )
    )


def _billed(record: UsageRecord) -> bytes:
    terms = record.terms
    return _encode(
        (
            record.usage_id,
            record.user_id,
            record.organization_id,
            record.usage_type,
            record.units,
            record.recorded_at,
            record.occurred_at,
            record.billing_period.toordinal(),
            record.quota_period,
            record.pool_period,
            terms.subscription_id,
            terms.plan_tier,
            terms.plan_version,
            record.payload.recorded_by,
            record.payload.reversal_of,
        )
    )


CANONICAL = {1: _billed, VERSION: canonical}
