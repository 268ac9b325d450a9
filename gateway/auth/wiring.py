"""Authentication as it is configured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from joserfc.jwk import ECKey

from gateway.auth.asked import Asked
from gateway.auth.authenticator import Authenticator
from gateway.auth.claims import Rules
from gateway.auth.introspection import Introspection
from gateway.auth.keys import PublishedKeys, SigningKey
from gateway.auth.service import AuthService
from gateway.auth.tokens import Issuer, Tokens
from gateway.auth.userinfo import Userinfo
from ledger.auth_settings import DEV_ISSUER, AuthSettings


class Authentication:
    """The authenticator, and what it needs while it runs."""

    def __init__(self, settings: AuthSettings, dev_key: ECKey | None) -> None:
        """`dev_key` is the one of dev tokens, None in production: those are refused there, and
        so is who has no token."""
        self._service = AuthService()
        self._published = self._keys(settings)
        self.authenticator = Authenticator(
            Tokens(self._issuers(settings, dev_key), settings.audience),
            anonymous=dev_key is not None,
            introspection=self._introspection(settings),
            userinfo=self._userinfo(settings),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reads the published keys again and again until the block is left."""
        reading = None
        if self._published is not None:
            reading = asyncio.ensure_future(self._published.for_ever())
        try:
            yield
        finally:
            if reading is not None:
                reading.cancel()
            await self._service.close()

    def _keys(self, settings: AuthSettings) -> PublishedKeys | None:
        if settings.jwks_url is None:
            return None
        return PublishedKeys(self._service, settings.jwks_url, lambda: self.authenticator.forget())

    def _issuers(self, settings: AuthSettings, dev_key: ECKey | None) -> list[Issuer]:
        found = []
        if dev_key is not None:
            own = {str(dev_key.kid): SigningKey(dev_key, "ES256", b"")}
            found.append(Issuer(DEV_ISSUER, own.get, is_dev=True))
        if self._published is not None:
            assert settings.issuer is not None
            found.append(Issuer(settings.issuer, self._published.find))
        return found

    def _introspection(self, settings: AuthSettings) -> tuple[Asked, Rules] | None:
        if settings.introspection_url is None:
            return None
        assert settings.client_id is not None
        assert settings.client_secret is not None
        introspection = Introspection(
            self._service, settings.introspection_url, settings.client_id, settings.client_secret
        )
        return Asked(introspection.ask), Rules(settings.issuer, settings.audience, signed=False)

    def _userinfo(self, settings: AuthSettings) -> Asked | None:
        if settings.userinfo_url is None:
            return None
        return Asked(Userinfo(self._service, settings.userinfo_url).ask)
