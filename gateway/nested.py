"""Bodies with objects within, such as plans: whichever of them names a field twice is refused.

`gateway.messages.decode` counts keys, which is fast; but a field that is left out within has its
default, and cannot be told from one that is given.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from gateway.problems import Kind, Problem
from gateway.wrong_body import say

T = TypeVar("T")


def decode_nested(decoder: msgspec.json.Decoder[T], raw: bytes, kind: Any, where: str) -> T:
    """The typed document, or a problem that names the place but not the value."""
    try:
        value = decoder.decode(raw)
        # Numbers stay text: they are only passed over, and one of many digits is not made.
        json.loads(raw, object_pairs_hook=_object, parse_int=str, parse_float=str)
    except msgspec.ValidationError as error:
        raise Problem(Kind.INVALID_REQUEST, say(str(error), kind, where)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Problem(Kind.INVALID_REQUEST, f"{where}: not valid JSON in UTF-8") from None
    except RecursionError:
        raise Problem(Kind.INVALID_REQUEST, f"{where}: nested too deeply") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Problem(Kind.INVALID_REQUEST, "the body names a field twice")
    return found
