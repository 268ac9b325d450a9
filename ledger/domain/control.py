"""Control entries: what ends the terms of a quota, in the same order as the usage around it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from ledger.domain.usage import BadEntry, at_ms

Kind = Literal["supersede", "close"]


class Control(msgspec.Struct, frozen=True, array_like=True):
    """Usage before this entry was admitted under earlier terms of the subscription, usage after it
    under those of `version` or later; after a `close`, no usage is of a period that ended before.
    `outbox_id` is the work that is done once it is drained."""

    kind: Kind
    outbox_id: int
    subscription_id: bytes
    version: int


_decode = msgspec.msgpack.Decoder(Control).decode
_encode = msgspec.msgpack.Encoder().encode


def encode_control(control: Control) -> bytes:
    return _encode(control)


def parse_control(fields: Mapping[str, bytes]) -> tuple[Control, datetime]:
    """What a control entry says, and when it was written. Raises `BadEntry`."""
    try:
        control, at = _decode(fields["control"]), at_ms(int(fields["at"]))
    except (KeyError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise BadEntry("control entry is malformed") from error
    if len(control.subscription_id) != 16:
        raise BadEntry("control entry is malformed")
    return control, at
