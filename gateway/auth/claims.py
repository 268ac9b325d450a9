"""What is said of a caller, in a token or by the auth service: is it right, and who is it?"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from joserfc.errors import JoseError
from joserfc.jwt import ClaimsOption, JWTClaimsRegistry

from gateway.auth.principal import Principal
from ledger import clock

LEEWAY_S = 30  # clocks of the auth service and ours may differ by this much
MAX_SUBJECT = 255

Claims = dict[str, Any]
MALFORMED = (JoseError, ValueError, TypeError, KeyError, OverflowError, RecursionError)
"""What reading something that somebody else wrote may raise, with joserfc and without."""


class Refused(Exception):
    """The token is not good."""


class Rules:
    """Which claims there must be, and which values are right."""

    def __init__(self, issuer: str | None, audience: str, *, signed: bool) -> None:
        """`signed`: of a token that is all there is. The auth service itself, when it is asked,
        need not repeat when the token was issued and until when it is good."""
        options: dict[str, ClaimsOption] = {
            "aud": {"essential": True, "value": audience},
            "sub": {"essential": True},
            "exp": {"essential": signed},
            "iat": {"essential": signed},
        }
        if issuer is not None:
            options["iss"] = {"essential": signed, "value": issuer}
        self._registry = JWTClaimsRegistry(now=now_s, leeway=LEEWAY_S, **options)

    def check(self, claims: Claims) -> None:
        """Raises `Refused`."""
        try:
            self._registry.validate(claims)
        except MALFORMED:
            raise Refused from None
        if "cnf" in claims:  # bound to a key of its owner's, which nobody proves to have here
            raise Refused


def now_s() -> int:
    return int(clock.now().timestamp())


def seconds_left(claims: Claims) -> int | None:
    """Until it is not good any more; None when that was not said."""
    return int(claims["exp"]) + LEEWAY_S - now_s() if "exp" in claims else None


def principal_of(claims: Claims) -> Principal:
    """Raises `Refused`."""
    try:
        return _principal(claims)
    except MALFORMED:
        raise Refused from None


def _principal(claims: Claims) -> Principal:
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
