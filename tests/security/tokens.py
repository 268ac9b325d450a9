"""Tokens that the dev minter would never make."""

from __future__ import annotations

import time
from typing import Any

from joserfc import jwt

from gateway.dev.tokens import DEV_AUDIENCE, DEV_ISSUER
from tests.conftest import Service

REMOVED: Any = ...  # has one name in every process: it is in the names of tests


def claims(**changed: Any) -> dict[str, Any]:
    """A good service's claims, with some changed or `REMOVED`."""
    now = int(time.time())
    good: dict[str, Any] = {
        "iss": DEV_ISSUER,
        "aud": DEV_AUDIENCE,
        "sub": "service-test",
        "roles": ["service"],
        "scope": "usage:write usage:read",
        "iat": now,
        "exp": now + 600,
    }
    return {name: value for name, value in (good | changed).items() if value is not REMOVED}


def signed(service: Service, **changed: Any) -> dict[str, str]:
    """The Authorization header of a token signed with the service's own key."""
    return bearer(encoded(service.key, claims(**changed)))


def encoded(key: Any, said: dict[str, Any], header: dict[str, Any] | None = None) -> str:
    return jwt.encode({"alg": "ES256", "kid": key.kid} | (header or {}), said, key)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
