"""Without a token only this machine's own names are served, in dev: a web page may have its name
resolve to loopback, but cannot choose the Host header."""

from __future__ import annotations

import pytest

from gateway.auth import DEV_SERVICE, Authenticator
from gateway.auth.tokens import Tokens
from gateway.problems import Problem


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator(Tokens([], "billing"), anonymous=True)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8081", "127.0.0.1:8081", "[::1]:8081", "[::1]"]
)
def test_a_name_of_this_machine_needs_no_token(authenticator: Authenticator, host: str) -> None:
    assert authenticator.principal(None, host, None) is DEV_SERVICE


@pytest.mark.parametrize(
    "host",
    ["127.evil.example:8080", "127.0.0.1.evil.example", "evil.example", "10.0.0.1", "", None],
)
def test_any_other_name_needs_one(authenticator: Authenticator, host: str | None) -> None:
    with pytest.raises(Problem):
        authenticator.principal(None, host, None)
