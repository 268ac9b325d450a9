"""Stream entries and quota hashes in words, and back: the scripts pack them (lua/packing.py)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lua.packing import (
    COUNTED,
    NONE,
    Counted,
    unpack_counted,
    unpack_rule,
    unpack_said,
    unpack_state,
)

_NUMBER = re.compile(rb"-?[0-9]*\Z")
_OPTIONAL = ("pool_starts", "pool_used", "remaining")


def entry_in_words(fields: Mapping[str, bytes]) -> dict[str, bytes]:
    """id, fingerprint, who, type, quota, terms, payload; quota is the numbers with blanks between
    them and - where there is none. A control entry as it is."""
    if "event" not in fields:
        return dict(fields)
    said, counted = unpack_said(fields["event"]), unpack_counted(fields["quota"])
    quota = []
    for name, number in counted._asdict().items():
        is_none = number == NONE and (name != "pool_used" or counted.pool_starts == NONE)
        quota.append("-" if name in _OPTIONAL and is_none else str(number))
    return {
        "id": said.usage_id, "fingerprint": said.fingerprint, "who": said.who,
        "type": said.usage_type, "quota": " ".join(quota).encode(), "terms": fields["terms"],
        "payload": said.payload,
    }  # fmt: skip


def packed_entry(words: Mapping[str, bytes]) -> dict[str, bytes]:
    """The entry that such words stand for. A quota that is no list of numbers is left as it is."""
    quota = words["quota"]
    numbers = [NONE if one == b"-" else int(one) for one in quota.split() if _NUMBER.match(one)]
    if len(numbers) == len(Counted._fields):
        quota = COUNTED.pack(*numbers)
    said = b"".join(
        [
            words["id"],
            *(bytes([len(words[one])]) + words[one] for one in ("fingerprint", "type", "who")),
            words["payload"],
        ]
    )
    return {"event": said, "quota": quota, "terms": words["terms"]}


def quota_in_words(fields: Mapping[str, bytes]) -> dict[str, bytes]:
    """epoch, starts, ends, good_until, seen_at and blocked instead of `state`; limit:* and rate:*
    (where there is one) instead of rule:*."""
    words: dict[str, bytes] = {}
    for name, raw in fields.items():
        kind, _, usage_type = name.partition(":")
        if kind == "state":
            state = unpack_state(raw)
            words |= {
                key: str(value).encode() for key, value in state._asdict().items() if value != ""
            }
        elif kind == "rule":
            rule = unpack_rule(raw)
            limit = "-" if rule.limit is None else str(rule.limit)
            words[f"limit:{usage_type}"] = f"{rule.enforcement}{limit}".encode()
            if rule.rate_limit:
                words[f"rate:{usage_type}"] = b"%d %d" % (rule.rate_limit, rule.rate_window_us)
        else:
            words[name] = raw
    return words
