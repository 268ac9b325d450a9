"""Who is calling, and what they may do. Deny by default."""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Literal
from uuid import UUID

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from gateway.problems import Kind, Problem
from ledger import clock

Role = Literal["service", "user", "org_admin", "finance", "admin"]

LEEWAY_S = 30  # clocks of the auth service and ours may differ by this much
CACHED_S = 60  # a token is verified again after this, so that revocation takes effect
CACHE_SIZE = 10_000
MAX_SUBJECT = 255
_MAX_TOKEN = 8192


class Action(enum.StrEnum):  # hashed in C, once a request
    """What a route does, as the role table of the contract names it."""

    RECORD_USAGE = "record, check, reserve usage"
    READ_USAGE = "read usage, quota"
    READ_SUBSCRIPTION = "read subscription, invoices"
    READ_ORGANIZATION = "read an organisation"
    CHANGE = "change plan, subscription, correct, close"
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
    Action.AUDIT: {"finance": _ALL, "admin": _ALL},
}
"""The role table. A role that is not named may not."""

SCOPES: dict[Action, str] = {
    Action.RECORD_USAGE: "usage:write",
    Action.READ_USAGE: "usage:read",
}
"""What a service token's `scope` must contain besides its role."""


@lru_cache(maxsize=1024)
def _reach(
    roles: frozenset[str], scopes: frozenset[str], every_organization: bool, action: Action
) -> Reach:
    rights, scope = RIGHTS[action], SCOPES.get(action)
    if scope and scope not in scopes:
        roles -= {"service"}
    best = max((rights.get(role, _N) for role in roles), default=_N)  # type: ignore[call-overload]
    return _ALL if best is _ORG and every_organization else Reach(best)


class Principal(msgspec.Struct, frozen=True):
    """The caller: `organizations` are those of the token, `every_organization` its ``*``."""

    subject: str
    roles: frozenset[str]
    organizations: frozenset[UUID] = frozenset()
    every_organization: bool = False
    scopes: frozenset[str] = frozenset()
    anonymous: bool = False  # no token, in dev

    @property
    def user_id(self) -> UUID | None:
        """The user this principal is, when it is one."""
        try:
            return UUID(self.subject)
        except ValueError:
            return None

    def reach(self, action: Action) -> Reach:
        """How far this principal may go. Raises the problem when it may not at all."""
        best = _reach(self.roles, self.scopes, self.every_organization, action)
        if best is _N:
            if self.anonymous:
                raise unauthorized("this needs a token: ./run token --role ...")
            raise Problem(Kind.FORBIDDEN, "your role does not allow this")
        return best

    def acts_for(self, organization_id: UUID) -> bool:
        return self.every_organization or organization_id in self.organizations


Denied = Callable[[Principal | None, str, int], None]
"""Told of who was denied a route, by its name, and with which status; None: nobody we know."""

DEV_SERVICE = Principal(
    subject="service-dev",
    roles=frozenset({"service"}),
    every_organization=True,
    scopes=frozenset(SCOPES.values()),
    anonymous=True,
)
"""Who calls without a token in the dev environment, where the spec's curl examples must work."""


class Authenticator:
    """Verifies bearer tokens; remembers the verified ones for a minute. By the header as it came,
    not by a hash of it: the hash cost as much as all else that is done for a known caller."""

    def __init__(self, keys: KeySet, issuer: str, audience: str, *, anonymous: bool) -> None:
        self._keys = keys
        self._anonymous = anonymous
        self._cache: dict[str, tuple[float, Principal]] = {}
        self._claims = jwt.JWTClaimsRegistry(
            now=_now_s,
            leeway=LEEWAY_S,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )

    def principal(self, header: str | None, host: str | None) -> Principal:
        """The caller, from the Authorization and Host headers. Raises the 401 problem."""
        if header is None:
            if self._anonymous and _is_local(host):
                return DEV_SERVICE
            raise unauthorized("a bearer token is needed")
        now = clock.monotonic()
        cached = self._cache.get(header)
        if cached is not None and cached[0] > now:
            return cached[1]
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN:
            raise unauthorized("the Authorization header is not a bearer token")
        principal, lifetime = self._verify(token)
        if len(self._cache) >= CACHE_SIZE:
            self._cache.clear()
        self._cache[header] = (now + lifetime, principal)
        return principal

    def _verify(self, token: str) -> tuple[Principal, int]:
        try:
            claims = jwt.decode(token, self._keys, algorithms=["ES256"]).claims
            self._claims.validate(claims)
            principal = _principal(claims)
            lifetime = max(0, min(CACHED_S, int(claims["exp"]) + LEEWAY_S - _now_s()))
        except (JoseError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise unauthorized("the token is not valid or has expired") from None
        return principal, lifetime


def _now_s() -> int:
    return int(clock.now().timestamp())


def _is_local(host: str | None) -> bool:
    """Whether a request was meant for this machine: a web page that has its own name resolve to
    loopback (DNS rebinding) says that name here."""
    name = (host or "").rsplit(":", 1)[0] if not (host or "").endswith("]") else host
    try:
        return name == "localhost" or ip_address((name or "").strip("[]")).is_loopback
    except ValueError:
        return False


def _principal(claims: dict[str, Any]) -> Principal:
    org = claims.get("org")
    names = org if isinstance(org, list) else [] if org is None else [org]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("org")
    roles = claims.get("roles", [])
    scope = claims.get("scope", "")
    subject = claims["sub"]
    if not (isinstance(roles, list) and isinstance(scope, str) and isinstance(subject, str)):
        raise ValueError("claims")
    if not (1 <= len(subject) <= MAX_SUBJECT and subject.isprintable()):  # it goes into the ledger
        raise ValueError("sub")
    return Principal(
        subject=subject,
        roles=frozenset(role for role in roles if isinstance(role, str)),
        organizations=frozenset(UUID(name) for name in names if name != "*"),
        every_organization="*" in names,
        scopes=frozenset(scope.split()),
    )


def unauthorized(detail: str) -> Problem:
    return Problem(Kind.UNAUTHORIZED, detail, {"WWW-Authenticate": "Bearer"})
