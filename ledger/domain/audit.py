"""The chain of audit events: what an event's hash covers, and how one follows another."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from uuid import UUID

import msgspec

CONTROL = "control"  # the chain of all that is not a usage record
VERSION = 1
FIRST_HEAD = sha256(b"").digest()

# Sorted keys, no spaces, UTF-8: as RFC 8785 says, but for numbers, which stay as they are stored.
_encode = msgspec.json.Encoder(order="deterministic", decimal_format="number").encode
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Event(msgspec.Struct, frozen=True):
    """A row of `audit_events`, but for its place in the chain; `details` as JSON."""

    event_id: UUID
    event_type: str
    actor: str
    user_id: UUID | None
    organization_id: UUID | None
    details: str
    occurred_at: datetime
    noted_at: datetime


class Link(msgspec.Struct, frozen=True):
    """An event's place in the chain. `version` says what the hash covers."""

    sequence: int
    version: int
    previous: bytes
    hash: bytes


def link(event: Event, sequence: int, previous: bytes) -> Link:
    """The place of an event after the one whose hash is `previous`."""
    digest = sha256(canonical(event, sequence, previous)).digest()
    return Link(sequence, VERSION, previous, digest)


def canonical(event: Event, sequence: int, previous: bytes) -> bytes:
    """The bytes that an event's hash is made of: one JSON array, documented in docs/audit.md."""
    return _encode(
        (
            "billing-audit",
            VERSION,
            CONTROL,
            sequence,
            previous.hex(),
            str(event.event_id),
            event.event_type,
            event.actor,
            None if event.user_id is None else str(event.user_id),
            None if event.organization_id is None else str(event.organization_id),
            instant(event.occurred_at),
            instant(event.noted_at),
            _decode(event.details),
        )
    )


def instant(at: datetime) -> str:
    """RFC 3339 in UTC, always with six digits of the second."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
