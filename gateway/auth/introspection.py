"""Asks the auth service whether a token is good (RFC 7662), as a client of it."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import quote_plus

from gateway.auth.claims import Claims
from gateway.auth.service import AuthService
from ledger.settings import Secret

WHAT = "introspection"


class Introspection:
    """`ask` for one token."""

    def __init__(self, service: AuthService, url: str, client_id: str, secret: Secret) -> None:
        self._service = service
        self._url = url
        # RFC 6749, 2.3.1: both are form-encoded before they are put together.
        both = f"{quote_plus(client_id)}:{quote_plus(secret.reveal())}"
        self._credentials = Secret(f"Basic {b64encode(both.encode()).decode()}")

    async def ask(self, token: str) -> Claims | None:
        """What the token says, None when it is not good. Raises `Silent`."""
        status, body = await self._service.ask(
            WHAT,
            self._url,
            {"Authorization": self._credentials.reveal()},
            {"token": token, "token_type_hint": "access_token"},
        )
        if status != 200:  # it does not believe us: that says nothing of the token
            raise self._service.failed(WHAT, f"status {status}: is AUTH_CLIENT_SECRET right?")
        said = self._service.object_of(WHAT, body)
        return said if said.get("active") is True else None
