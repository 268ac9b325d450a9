"""Asks the auth service over HTTP: little time, little to read, nothing followed anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
import structlog

from gateway import metrics
from gateway.problems import Problem, unavailable
from ledger import clock

log = structlog.get_logger()

DEADLINE_S = 2.0
MAX_ANSWER = 256 * 1024
CONNECTIONS = 32
RETRY_AFTER_S = 5
LOG_EVERY_S = 60  # while it does not answer every request would write a line


class Silent(Exception):
    """The auth service gave no answer that can be used; says why, never what it sent."""


def silent() -> Problem:
    return unavailable(
        "the auth service does not answer, so the token cannot be verified; retry",
        retry_after=RETRY_AFTER_S,
    )


class AuthService:
    """The connections to it. Redirects are not followed, with a token least of all."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._logged_at: dict[str, float] = {}

    async def ask(
        self,
        what: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Status (200, 401, 403 or 404) and body; a form is sent by POST. Raises `Silent`."""
        try:
            answer = await self._twice("GET" if form is None else "POST", url, headers, form)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise self.failed(what, type(error).__name__) from None
        if answer[0] not in (200, 401, 403, 404):
            raise self.failed(what, f"status {answer[0]}")
        metrics.AUTH_ASKED.labels(what, "answered").inc()
        return answer

    def object_of(self, what: str, body: bytes) -> dict[str, Any]:
        """The JSON object that was answered. Raises `Silent`."""
        try:
            said = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise self.failed(what, "no JSON object")
        return said

    def failed(self, what: str, reason: str) -> Silent:
        """Notes an answer that cannot be used; gives the error to raise."""
        metrics.AUTH_ASKED.labels(what, "failed").inc()
        now = clock.monotonic()
        if now - self._logged_at.get(what, float("-inf")) >= LOG_EVERY_S:
            self._logged_at[what] = now
            log.error("auth_service_failed", asked_for=what, reason=reason)
        return Silent(what)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _twice(self, *asked: Any) -> tuple[int, bytes]:
        """Once more when a connection that was kept turns out to be closed."""
        try:
            return await self._once(*asked)
        except aiohttp.ServerDisconnectedError:
            return await self._once(*asked)

    async def _once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        form: Mapping[str, str] | None,
    ) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=DEADLINE_S),
                auto_decompress=False,  # a small answer could become a large one
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            )
        async with self._session.request(
            method, url, headers=headers, data=form, allow_redirects=False
        ) as response:
            body = b""
            async for part in response.content.iter_chunked(16 * 1024):
                body += part
                if len(body) > MAX_ANSWER:
                    raise ValueError("the answer is too large")
            return response.status, body
