"""The role table: which role may do what, and how far. A role that is not named may not."""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import Literal

Role = Literal["service", "user", "org_admin", "finance", "admin"]


class Action(enum.StrEnum):  # hashed in C, once a request
    """What a route does, as the role table of the contract names it."""

    RECORD_USAGE = "record, check, reserve usage"
    READ_USAGE = "read usage, quota"
    READ_SUBSCRIPTION = "read subscription, invoices"
    READ_ORGANIZATION = "read an organisation"
    CHANGE = "change plan, subscription, correct, close"
    MAKE_USAGE_TYPES = "make usage types"
    AUDIT = "audit, reconcile, revenue"


class Reach(enum.IntEnum):
    """How far a role's right to an action goes."""

    NONE = 0
    OWN = 1  # the user's own
    ORGANIZATIONS = 2  # those named in the token
    ALL = 3


_N, _OWN, _ORG, _ALL = Reach.NONE, Reach.OWN, Reach.ORGANIZATIONS, Reach.ALL

RIGHTS: dict[Action, dict[Role, Reach]] = {
    Action.RECORD_USAGE: {"service": _ORG},
    Action.READ_USAGE: {
        "user": _OWN,
        "org_admin": _ORG,
        "finance": _ALL,
        "admin": _ALL,
        "service": _ORG,
    },
    Action.READ_SUBSCRIPTION: {
        "user": _OWN,
        "org_admin": _ORG,
        "finance": _ALL,
        "admin": _ALL,
    },
    Action.READ_ORGANIZATION: {"org_admin": _ORG, "finance": _ALL, "admin": _ALL},
    Action.CHANGE: {"finance": _ALL, "admin": _ALL},
    Action.MAKE_USAGE_TYPES: {"admin": _ALL},
    Action.AUDIT: {"finance": _ALL, "admin": _ALL},
}

SCOPES: dict[Action, str] = {
    Action.RECORD_USAGE: "usage:write",
    Action.READ_USAGE: "usage:read",
}
"""What a service token's `scope` must contain besides its role."""


@lru_cache(maxsize=1024)
def reach(
    roles: frozenset[str], scopes: frozenset[str], every_organization: bool, action: Action
) -> Reach:
    """How far somebody with these roles and scopes may go."""
    rights, scope = RIGHTS[action], SCOPES.get(action)
    if scope and scope not in scopes:
        roles -= {"service"}
    best = max((rights.get(role, _N) for role in roles), default=_N)  # type: ignore[call-overload]
    return _ALL if best is _ORG and every_organization else Reach(best)
