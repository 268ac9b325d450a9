"""AUTH_*: what goes together, and what production needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger import settings
from ledger.settings import SettingError

URLS = {"DATABASE_URL": "postgresql://localhost/x", "REDIS_URL": "redis://localhost"}
PRODUCTION = URLS | {"BILLING_ENV": "production"}
SIGNED = {"AUTH_JWKS_URL": "https://auth.example/keys", "AUTH_ISSUER": "https://auth.example"}
ASKED = {
    "AUTH_INTROSPECTION_URL": "https://auth.example/introspect",
    "AUTH_CLIENT_ID": "billing",
    "AUTH_CLIENT_SECRET": "hidden",
}


@pytest.mark.parametrize("given", [SIGNED, ASKED, SIGNED | ASKED], ids=["signed", "asked", "both"])
def test_production_starts_with_an_auth_service(given: dict[str, str]) -> None:
    found = settings.load_gateway(PRODUCTION | given | {"HOST": "0.0.0.0"})
    assert not found.is_dev
    assert found.auth.jwks_url == given.get("AUTH_JWKS_URL")
    assert found.auth.introspection_url == given.get("AUTH_INTROSPECTION_URL")


def test_production_does_not_start_without_one_and_only_the_gateway_needs_it() -> None:
    with pytest.raises(
        SettingError, match=r"^AUTH_JWKS_URL: or AUTH_INTROSPECTION_URL is required"
    ):
        settings.load_gateway(PRODUCTION)
    assert not settings.load(PRODUCTION).is_dev  # the ledger's
    assert settings.load_gateway(URLS).is_dev


def test_the_secret_may_come_from_a_file_and_shows_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("hidden\n")
    given = {name: value for name, value in ASKED.items() if name != "AUTH_CLIENT_SECRET"}
    found = settings.load(URLS | given | {"AUTH_CLIENT_SECRET_FILE": str(path)})
    assert found.auth.client_secret is not None
    assert found.auth.client_secret.reveal() == "hidden"
    assert "hidden" not in repr(found)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"AUTH_JWKS_URL": SIGNED["AUTH_JWKS_URL"]}, "AUTH_ISSUER: is required"),
        ({"AUTH_ISSUER": "x"}, "AUTH_ISSUER: needs AUTH_JWKS_URL"),
        (SIGNED | {"AUTH_ISSUER": "billing-dev"}, "AUTH_ISSUER: is the issuer of dev tokens"),
        (ASKED | {"AUTH_CLIENT_ID": ""}, "AUTH_CLIENT_ID: is required"),
        (ASKED | {"AUTH_CLIENT_SECRET": ""}, "AUTH_CLIENT_SECRET: is required"),
        ({"AUTH_CLIENT_ID": "x"}, "AUTH_CLIENT_ID: is for AUTH_INTROSPECTION_URL"),
        ({"AUTH_CLIENT_SECRET": "hidden"}, "AUTH_CLIENT_SECRET: is for AUTH_INTROSPECTION_URL"),
        ({"AUTH_USERINFO_URL": "https://auth.example/me"}, "AUTH_USERINFO_URL: needs AUTH_JWKS"),
    ],
)
def test_what_goes_together_is_given_together(given: dict[str, str], named: str) -> None:
    with pytest.raises(SettingError, match=named) as refused:
        settings.load(URLS | given)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("name", ["AUTH_JWKS_URL", "AUTH_INTROSPECTION_URL", "AUTH_USERINFO_URL"])
@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("https://auth.example/x?y=1", True),
        ("http://localhost:8080/x", True),
        ("http://127.0.0.1/x", True),
        ("http://auth-rbac:8080/x", True),
        ("http://auth.billing.svc.cluster.local/x", True),
        ("http://auth.example/x", False),
        ("http://10.0.0.1/x", False),
        ("http://[fe80::1]/x", False),
        ("http://localhost.example/x", False),
        ("https://hidden@auth.example/x", False),
        ("https://auth.example/x#y", False),
        ("https://auth.example:port/x", False),
        ("https:///x", False),
        ("file:///etc/passwd", False),
        ("auth.example", False),
    ],
)
def test_the_auth_service_is_reached_over_tls_or_within_this_host_or_cluster(
    name: str, url: str, taken: bool
) -> None:
    for variables in (URLS, PRODUCTION):
        given = variables | SIGNED | ASKED | {name: url}
        if taken:
            settings.load(given)
            continue
        with pytest.raises(SettingError, match=f"^{name}: must be like https://") as refused:
            settings.load(given)
        assert "hidden" not in str(refused.value)
