"""A small auth service on a real socket: published keys, introspection, userinfo; it fails when it
is told to."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import Counter
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import unquote_plus

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from ledger.auth_settings import AuthSettings
from ledger.settings import Secret
from tests.security.tokens import REMOVED

ISSUER = "https://auth.example"
CLIENT_ID, CLIENT_SECRET = "billing gateway", "s3cret: of the client%"
Fault = Literal["down", "slow", "garbage", "huge", "redirect", "error", "refuses us"]


def ec(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid, "use": "sig", "alg": "ES256"})


def rsa(kid: str, algorithm: str = "RS256", bits: int = 2048) -> RSAKey:
    return RSAKey.generate_key(bits, {"kid": kid, "use": "sig", "alg": algorithm})


def okp(kid: str) -> OKPKey:
    return OKPKey.generate_key("Ed25519", {"kid": kid, "use": "sig", "alg": "EdDSA"})


class FakeAuth:
    """`active` are the opaque tokens with their claims, `organizations` those of its users;
    `published`, when set, is what it answers in place of its keys."""

    def __init__(self) -> None:
        self.keys: list[Key] = [ec("one")]
        self.published: Any = None
        self.active: dict[str, dict[str, Any]] = {}
        self.organizations: dict[str, Any] = {}
        self.fault: Fault | None = None
        self.asked: Counter[str] = Counter()
        self.under_way = self.most_at_once = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._arrived = asyncio.Event()
        self._closing = asyncio.Event()
        app = web.Application()
        app.router.add_get("/keys", self._keys)
        app.router.add_post("/introspect", self._introspect)
        app.router.add_get("/userinfo", self._userinfo)
        app.router.add_route("*", "/elsewhere", self._elsewhere)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        self._url = ""

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        self.may_answer.set()
        await self._runner.cleanup()

    def settings(self, *asked: Literal["keys", "introspection", "userinfo"]) -> AuthSettings:
        """Of a gateway that asks for these."""
        introspects = "introspection" in asked
        return AuthSettings(
            issuer=ISSUER,
            jwks_url=f"{self._url}/keys" if "keys" in asked else None,
            introspection_url=f"{self._url}/introspect" if introspects else None,
            client_id=CLIENT_ID if introspects else None,
            client_secret=Secret(CLIENT_SECRET) if introspects else None,
            userinfo_url=f"{self._url}/userinfo" if "userinfo" in asked else None,
        )

    def signed(
        self, key: Key | None = None, head: dict[str, Any] | None = None, **said: Any
    ) -> str:
        """A token; the claims are those of a good service's but for what is said."""
        by = key or self.keys[0]
        header = {"alg": str(by.get("alg")), "kid": by.kid, **(head or {})}
        return jwt.encode(header, claims(**said), by, algorithms=[header["alg"]])

    def granted(self, **said: Any) -> str:
        """A token that introspection vouches for as well."""
        token = self.signed(**said)
        self.active[token] = claims(**said)
        return token

    async def until(self, name: str, times: int) -> None:
        """Waits until it has been asked for something so often."""
        async with asyncio.timeout(20):
            while self.asked[name] < times:
                self._arrived.clear()
                await self._arrived.wait()

    # Its answers

    async def _keys(self, request: web.Request) -> web.StreamResponse:
        public = {"keys": [one.as_dict(private=False) for one in self.keys]}
        return await self._answer(
            "keys", request, public if self.published is None else self.published
        )

    async def _introspect(self, request: web.Request) -> web.StreamResponse:
        given = request.headers["Authorization"].removeprefix("Basic ")
        client, _, secret = base64.b64decode(given).decode().partition(":")
        if (unquote_plus(client), unquote_plus(secret)) != (CLIENT_ID, CLIENT_SECRET):
            return web.Response(status=401)
        found = self.active.get(str((await request.post())["token"]))
        said = {"active": False} if found is None else {"active": True} | found
        return await self._answer("introspection", request, said)

    async def _userinfo(self, request: web.Request) -> web.StreamResponse:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        found = self.active.get(token) or json.loads(_part(token, 1))
        if found["sub"] not in self.organizations:
            self.asked["userinfo"] += 1
            return web.Response(status=401)
        said = {"sub": found["sub"], "org": self.organizations[found["sub"]]}
        return await self._answer("userinfo", request, said)

    async def _elsewhere(self, request: web.Request) -> web.StreamResponse:
        self.asked["elsewhere"] += 1
        return web.json_response({"keys": [], "active": True} | claims())

    async def _answer(self, name: str, request: web.Request, said: Any) -> web.StreamResponse:
        self.asked[name] += 1
        self._arrived.set()
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            await self.may_answer.wait()
        finally:
            self.under_way -= 1
        match self.fault:
            case "down":
                assert request.transport is not None
                request.transport.abort()
            case "slow":
                await self._closing.wait()
            case "garbage":
                return web.Response(body=b'{"keys": [[[\xff', content_type="application/json")
            case "huge":
                return web.Response(body=json.dumps(said | {"x": "x" * 1_000_000}).encode())
            case "redirect":
                return web.Response(status=307, headers={"Location": f"{self._url}/elsewhere"})
            case "error":
                return web.Response(status=500)
            case "refuses us":
                return web.Response(status=403)
        return web.json_response(said)


class In(NamedTuple):
    """A time, as far from when the token is made."""

    seconds: float


def claims(**changed: Any) -> dict[str, Any]:
    """A good service's claims, with some changed or `REMOVED`."""
    now = int(time.time())
    good: dict[str, Any] = {
        "iss": ISSUER,
        "aud": "billing",
        "sub": "service-test",
        "roles": ["service"],
        "scope": "usage:write usage:read",
        "org": "*",
        "iat": now,
        "exp": now + 600,
    }
    return {
        name: now + value.seconds if isinstance(value, In) else value
        for name, value in (good | changed).items()
        if value is not REMOVED
    }


def _part(token: str, at: int) -> bytes:
    text = token.split(".")[at]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
