"""Which keys metadata may have, and what stands under each. Text that says anything has no key."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from ledger.domain.identifiers import Identifier
from ledger.domain.phi import NONE, identifier

LONGEST_NAME = 32
MOST_ADDED = 32

_UUID = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_TOKEN = "[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}"  # noqa: S105 - a pattern, not a secret
_TYPES = {
    "uuid": (_UUID, "a UUID"),
    "token": (f"{_UUID}|({_TOKEN})", "an id or a short token"),
    "number": (r"-?[0-9]{1,12}(?:\.[0-9]{1,6})?", "a number of at most 12 digits"),
}
_NAME = re.compile(f"[a-z][a-z0-9_]{{0,{LONGEST_NAME - 1}}}")
# Parts of a name that ask for what must not enter.
_PERSONAL = {
    *(
        "address",
        "birth",
        "birthdate",
        "birthday",
        "born",
        "diagnosis",
        "dob",
        "dx",
        "email",
        "fax",
    ),
    *("icd", "insured", "mrn", "note", "patient", "phone", "ssn", "street", "surname", "zip"),
}


class Key(msgspec.Struct, frozen=True):
    """What the value of a key looks like. What the pattern takes in a group is text that is looked
    at; anything of it that is `expected` there may stay."""

    pattern: re.Pattern[str]
    meaning: str
    expected: frozenset[Identifier] = NONE


def _typed(kind: str, expected: frozenset[Identifier] = NONE) -> Key:
    pattern, meaning = _TYPES[kind]
    return Key(re.compile(pattern), meaning, expected)


BUILT_IN: Mapping[str, Key] = {
    "conversation_id": _typed("token"),
    "request_id": _typed("token"),
    # A model is named by its date, also by one of 2018.
    "ai_model_used": _typed("token", frozenset({"date"})),
    "feature": _typed("token"),
    "cost_center": _typed("token"),
    "department": _typed("token"),
}


def declared(text: str) -> dict[str, Key]:
    """The keys that an operator adds: `ward=token,shift=enum:day|night`. Raises `ValueError`, whose
    message repeats nothing of the text."""
    added: dict[str, Key] = {}
    for number, one in enumerate(text.split(","), 1):
        name, _, kind = one.strip().partition("=")
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"key {number} must be like ward=token: a name of a to z, 0 to 9 and _"
            )
        if name in added or name in BUILT_IN:
            raise ValueError(f"key {number} is there already")
        if _PERSONAL.intersection(name.split("_")):
            raise ValueError(f"key {number} is named for what must not enter")
        added[name] = _key(number, kind)
    if len(added) > MOST_ADDED:
        raise ValueError(f"has more than {MOST_ADDED} keys")
    return added


def _key(number: int, kind: str) -> Key:
    if kind in _TYPES:
        return _typed(kind)
    kind, _, words = kind.partition(":")
    allowed = words.split("|")
    if kind != "enum" or not all(re.fullmatch(_TOKEN, word) for word in allowed):
        raise ValueError(f"key {number} must be a uuid, token, number or enum:one|other")
    if any(identifier(word) for word in allowed):
        raise ValueError(f"key {number} lists what must not enter")
    return Key(re.compile("|".join(map(re.escape, allowed))), f"one of {', '.join(allowed)}")
