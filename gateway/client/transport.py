"""One attempt: the token, the request, and what came of it."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp

Token = str | Callable[[], str | Awaitable[str]] | None
"""A bearer token, or a function (async or not) that is asked for it before every attempt."""

BASE = "/api/v1/billing"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt. `status` 0: no answer; then `detail` of the document says why and
    `sent` whether the request may have reached the service all the same."""

    status: int
    document: Mapping[str, Any] = field(default_factory=dict)
    retry_after: float | None = None
    replayed: bool = False
    sent: bool = True

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def slug(self) -> str:
        """The problem's name in the API; empty when another than the service answered."""
        return re.split("[:/]", str(self.document.get("type", "")))[-1]

    @property
    def worth_retrying(self) -> bool:
        return self.status in (0, 408) or self.status >= 500 or self.is_early

    @property
    def is_early(self) -> bool:
        """A conflict that will pass: usage that is to be corrected has not reached the ledger."""
        return self.status == 409 and self.retry_after is not None

    @property
    def without_effect(self) -> bool:
        """Certainly nothing was recorded by this attempt, though it was no definite answer."""
        return (
            not self.sent
            or self.is_early
            or self.document.get("outcome") == "not_recorded"
            or (self.status == 408 and self.slug == "timeout")
        )


def lost(why: str, *, sent: bool) -> Answer:
    return Answer(0, {"detail": why}, sent=sent)


class Bearer:
    """Keeps a token out of every repr."""

    __slots__ = ("_source",)

    def __init__(self, source: Token) -> None:
        self._source = _clean(source) if isinstance(source, str) else source

    @property
    def rotates(self) -> bool:
        return callable(self._source)

    async def token(self) -> str | None:
        """The token of now. Raises what the caller's function raises."""
        if not callable(self._source):
            return self._source
        found = self._source()
        return _clean(await found if inspect.isawaitable(found) else found)


class Http:
    """Requests to one service; redirects are not followed: the token is for this service only."""

    def __init__(self, url: str, token: Token, connections: int) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("url must be http:// or https:// and a host, without user or password")
        self.url = url.rstrip("/")
        self._bearer = Bearer(token)
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def attempt(
        self,
        method: str,
        path: str,
        seconds: float,
        *,
        body: bytes | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        """Asks once; a refused token that was replaced meanwhile does not count.

        Raises what the caller's token function raises.
        """
        ask = partial(self._ask, method, path, seconds, body, params)
        try:
            token = await self._token(seconds)
            answer = await ask(token)
            if answer.status == 401 and self._bearer.rotates:
                newer = await self._token(seconds)
                if newer != token:
                    return await ask(newer)
            return answer
        except TimeoutError:
            return lost("no token in time", sent=False)

    async def _token(self, seconds: float) -> str | None:
        async with asyncio.timeout(seconds):
            return await self._bearer.token()

    async def _ask(
        self,
        method: str,
        path: str,
        seconds: float,
        body: bytes | None,
        params: Mapping[str, str] | None,
        token: str | None,
    ) -> Answer:
        # A shorter time to connect, so that a request that never left is known as such.
        timeout = aiohttp.ClientTimeout(total=seconds, connect=seconds * 2 / 3)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with self._opened().request(
                method,
                f"{self.url}{BASE}{path}",
                data=body,
                params=params,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                return Answer(
                    response.status,
                    _document(await response.read()),
                    _seconds(response.headers.get("Retry-After", "")),
                    response.headers.get("Idempotent-Replayed") == "true",
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return lost(_say(error), sent=False)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return lost(_say(error), sent=True)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _clean(token: str) -> str:
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the token has characters that no bearer token has, or none")
    return token


def _document(body: bytes) -> Mapping[str, Any]:
    """The JSON object with exact numbers; empty when the body is none."""
    try:
        found = json.loads(body, parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, ArithmeticError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _refuse(name: str) -> None:
    raise ValueError(name)


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() else None


def _say(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"{type(error).__name__}: {error}"
