"""A production gateway takes no dev tokens: here an auth service publishes the key of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from gateway.dev.tokens import DEV_ISSUER, dev_key
from ledger.settings import Settings
from tests.auth_fake.server import FakeAuth


@asynccontextmanager
async def in_production(settings: Settings) -> AsyncIterator[Settings]:
    """The settings of a gateway in production that knows the tokens of `Service.token`."""
    async with FakeAuth() as auth:
        auth.keys = [dev_key(settings.data_dir)]
        known = msgspec.structs.replace(auth.settings("keys"), issuer=DEV_ISSUER)
        yield msgspec.structs.replace(settings, environment="production", auth=known)
