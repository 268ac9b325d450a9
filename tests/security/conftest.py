"""An auth service, authentication by it, and a clock that is moved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from gateway.auth import Principal
from gateway.auth.wiring import Authentication
from gateway.problems import Problem
from ledger import clock
from ledger.auth_settings import AuthSettings
from tests.auth_fake.server import FakeAuth


class Door:
    """Authentication by an auth service, as the gateway has it; only its background work is
    done when a test says so."""

    def __init__(self, settings: AuthSettings) -> None:
        self.authentication = Authentication(settings, None)
        self.authenticator = self.authentication.authenticator

    async def enter(self, token: str, peer: str = "10.0.0.1") -> Principal:
        """Raises the problem."""
        return await self.authenticator.caller(f"Bearer {token}", None, peer)

    async def status(self, token: str, peer: str = "10.0.0.1") -> int:
        """What is answered; 200 for who gets in."""
        try:
            await self.enter(token, peer)
        except Problem as problem:
            return problem.kind.status
        return 200

    async def refresh(self) -> None:
        """What is done in the background."""
        published = self.authentication._published
        assert published is not None
        await published.refresh()


@pytest.fixture
async def auth() -> AsyncIterator[FakeAuth]:
    async with FakeAuth() as started:
        yield started


@pytest.fixture
async def doors() -> AsyncIterator[list[Door]]:
    """Those that a test has opened, to be closed after it."""
    opened: list[Door] = []
    yield opened
    for one in opened:
        await one.authentication._service.close()


class Time:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = 0.0
        real, real_ms, real_now = clock.monotonic, clock.now_ms, clock.now
        monkeypatch.setattr(clock, "monotonic", lambda: real() + self.passed)
        monkeypatch.setattr(clock, "now_ms", lambda: real_ms() + int(self.passed * 1000))
        monkeypatch.setattr(clock, "now", lambda: real_now() + timedelta(seconds=self.passed))

    def passes(self, seconds: float) -> None:
        self.passed += seconds


@pytest.fixture
def time_(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)
