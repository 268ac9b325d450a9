"""Asks the auth service who the user of a token is, and for which organisations."""

from __future__ import annotations

from gateway.auth.claims import Claims
from gateway.auth.service import AuthService

WHAT = "userinfo"


class Userinfo:
    """`ask` with one token."""

    def __init__(self, service: AuthService, url: str) -> None:
        self._service = service
        self._url = url

    async def ask(self, token: str) -> Claims | None:
        """What is known of its user, None when the service does not know, or refuses, it. Raises
        `Silent`."""
        headers = {"Authorization": f"Bearer {token}"}
        status, body = await self._service.ask(WHAT, self._url, headers)
        return self._service.object_of(WHAT, body) if status == 200 else None
