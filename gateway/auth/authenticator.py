"""The Authorization header becomes a principal."""

from __future__ import annotations

import re
from ipaddress import ip_address

from gateway import metrics
from gateway.auth.asked import Asked
from gateway.auth.claims import Claims, Refused, Rules, principal_of, seconds_left
from gateway.auth.principal import DEV_SERVICE, Principal, unauthorized
from gateway.auth.throttle import Throttle
from gateway.auth.tokens import Tokens
from gateway.known import knowing
from gateway.problems import Problem
from ledger import clock

CACHED_S = 60  # a token is verified again after this, so that revocation takes effect
CACHE_SIZE = 10_000
# RFC 6750: what else is sent is no token, and must not be sent on.
_BEARER = re.compile(r"bearer ([A-Za-z0-9._~+/-]{1,8192}=*)\Z", re.IGNORECASE)
_OF_ORGANIZATIONS = {"user", "org_admin"}  # roles whose rights depend on the user's organisation


class Authenticator:
    """Verifies bearer tokens; remembers the verified ones for a minute. By the header as it came,
    not by a hash of it: the hash cost as much as all else that is done for a known caller."""

    def __init__(
        self,
        tokens: Tokens,
        *,
        anonymous: bool,
        introspection: tuple[Asked, Rules] | None = None,
        userinfo: Asked | None = None,
    ) -> None:
        self._tokens = tokens
        self._anonymous = anonymous
        self._introspection = introspection
        self._userinfo = userinfo
        self._throttle = Throttle()
        self._cache: dict[str, tuple[float, Principal]] = {}

    def principal(self, header: str | None, host: str | None, peer: str | None) -> Principal:
        """The caller, from the Authorization and Host headers and the address it calls from.
        Raises the problem to answer, or `Unknown` when the auth service must be asked first."""
        if header is None:
            if self._anonymous and _is_local(host):
                return DEV_SERVICE
            raise unauthorized("a bearer token is needed")
        cached = self._cache.get(header)
        if cached is not None and cached[0] > clock.monotonic():
            return cached[1]
        return self._verified(header, peer)

    async def caller(self, header: str | None, host: str | None, peer: str | None) -> Principal:
        """As `principal`, after asking the auth service whatever is needed."""
        return await knowing(lambda: self.principal(header, host, peer))

    def forget(self) -> None:
        """Has every token verified again."""
        self._cache.clear()

    def _verified(self, header: str, peer: str | None) -> Principal:
        token = _BEARER.match(header)
        try:
            if token is None:
                raise Refused
            principal, until = self._identify(token[1], peer)
        except Refused:
            raise self._refusal(token is None, peer) from None
        if len(self._cache) >= CACHE_SIZE:
            del self._cache[next(iter(self._cache))]  # the oldest
        self._cache.pop(header, None)
        self._cache[header] = (until, principal)
        return principal

    def _identify(self, token: str, peer: str | None) -> tuple[Principal, float]:
        """Who it is, and until when that is good without asking again."""
        verified = self._tokens.verify(token)
        until = clock.monotonic() + CACHED_S
        claims = {} if verified is None else verified.claims
        if verified is None or not verified.issuer.is_dev:
            if self._introspection is not None:
                claims, until = self._introspected(token, claims, peer)
            if self._userinfo is not None and _needs_organizations(claims):
                claims, until = self._with_organizations(token, claims, until)
        if not claims:
            raise Refused
        left = seconds_left(claims)
        if left is not None:
            until = min(until, clock.monotonic() + min(left, CACHED_S))
        return principal_of(claims), until

    def _introspected(self, token: str, signed: Claims, peer: str | None) -> tuple[Claims, float]:
        """With what the auth service says of it. It is asked of a signed one as well, which may
        have been revoked."""
        assert self._introspection is not None
        asked, rules = self._introspection
        told = asked.known(token)
        if told is None:
            if not signed:  # nobody may have the auth service asked without end
                self._throttled(peer)
            raise asked.unknown(token)
        if told.claims is None:
            raise Refused
        claims = told.claims | signed
        rules.check(claims)
        if told.claims.get("sub", claims["sub"]) != claims["sub"]:
            raise Refused  # of somebody else
        return claims, told.until

    def _with_organizations(self, token: str, claims: Claims, until: float) -> tuple[Claims, float]:
        assert self._userinfo is not None
        told = self._userinfo.known(token)
        if told is None:
            raise self._userinfo.unknown(token)
        if told.claims is None or told.claims.get("sub") != claims.get("sub"):
            raise Refused
        return claims | {"org": told.claims.get("org")}, min(until, told.until)

    def _refusal(self, malformed: bool, peer: str | None) -> Problem:
        metrics.TOKENS_REFUSED.labels("bad").inc()
        try:
            self._throttle.bad(peer)
        except Problem as problem:
            return problem
        if malformed:
            return unauthorized("the Authorization header is not a bearer token")
        return unauthorized("the token is not valid or has expired")

    def _throttled(self, peer: str | None) -> None:
        try:
            self._throttle.check(peer)
        except Problem:
            metrics.TOKENS_REFUSED.labels("throttled").inc()
            raise


def _needs_organizations(claims: Claims) -> bool:
    roles = claims.get("roles")
    return (
        claims.get("org") is None
        and isinstance(roles, list)
        and any(role in _OF_ORGANIZATIONS for role in roles if isinstance(role, str))
    )


def _is_local(host: str | None) -> bool:
    """Whether a request was meant for this machine: a web page that has its own name resolve to
    loopback (DNS rebinding) says that name here."""
    name = (host or "").rsplit(":", 1)[0] if not (host or "").endswith("]") else host
    try:
        return name == "localhost" or ip_address((name or "").strip("[]")).is_loopback
    except ValueError:
        return False
