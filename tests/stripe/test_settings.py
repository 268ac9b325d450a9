"""STRIPE_API_KEY, STRIPE_API_BASE, STRIPE_MODE and STRIPE_WEBHOOK_SECRET."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger import settings
from ledger.__main__ import start

URLS = {"DATABASE_URL": "postgresql://localhost/x", "REDIS_URL": "redis://localhost"}


def test_without_a_key_nothing_is_set() -> None:
    found = settings.load(URLS)
    assert (found.stripe_api_key, found.stripe_api_base) == (None, None)


@pytest.mark.parametrize("key", ["sk_test_51abcDEF", "rk_live_51abcDEF"])
def test_a_secret_or_a_restricted_key_is_taken_and_shows_nowhere(key: str) -> None:
    found = settings.load({**URLS, "STRIPE_API_KEY": key})
    assert found.stripe_api_key is not None
    assert found.stripe_api_key.reveal() == key
    assert key not in f"{found!r} {found.stripe_api_key}"


def test_a_key_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sk_test_1\n")
    found = settings.load({**URLS, "STRIPE_API_KEY_FILE": str(path)})
    assert found.stripe_api_key is not None
    assert found.stripe_api_key.reveal() == "sk_test_1"


@pytest.mark.parametrize("key", ["pk_test_hidden", "hidden", "sk_hidden\r\nX-Other: 1", "sk_"])
def test_another_text_is_refused_without_being_told(key: str) -> None:
    with pytest.raises(settings.SettingError, match="STRIPE_API_KEY") as refused:
        settings.load({**URLS, "STRIPE_API_KEY": key})
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("base", "taken"),
    [
        ("https://stripe.example", "https://stripe.example"),
        ("https://stripe.example:8443/", "https://stripe.example:8443"),
        ("http://localhost:12111", "http://localhost:12111"),
        ("http://127.0.0.1:12111", "http://127.0.0.1:12111"),
    ],
)
def test_the_key_goes_to_another_server_over_tls_or_on_this_host(base: str, taken: str) -> None:
    assert settings.load({**URLS, "STRIPE_API_BASE": base}).stripe_api_base == taken


@pytest.mark.parametrize(
    "base",
    [
        "http://stripe.example",
        "http://localhost.example",
        "ftp://localhost",
        "stripe.example",
        "https://",
        "https://x:port",
        "https://key@stripe.example",
        "https://stripe.example/v1",
    ],
)
def test_a_base_that_would_give_the_key_away_or_is_none_is_refused(base: str) -> None:
    with pytest.raises(settings.SettingError, match="STRIPE_API_BASE"):
        settings.load({**URLS, "STRIPE_API_BASE": base})


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (None, []),
        ("whsec_a1", ["whsec_a1"]),
        ("whsec_a1,whsec_b2", ["whsec_a1", "whsec_b2"]),
        (" whsec_a1 , whsec_b2 ", ["whsec_a1", "whsec_b2"]),
    ],
)
def test_one_signing_secret_or_two_are_taken_and_show_nowhere(
    given: str | None, taken: list[str], tmp_path: Path
) -> None:
    found = settings.load({**URLS, "STRIPE_WEBHOOK_SECRET": given or ""})
    assert [one.reveal() for one in found.stripe_webhook_secrets] == taken
    assert "whsec_" not in repr(found)
    path = tmp_path / "secret"
    path.write_text(f"{given or ''}\n")
    from_file = settings.load({**URLS, "STRIPE_WEBHOOK_SECRET_FILE": str(path)})
    assert [one.reveal() for one in from_file.stripe_webhook_secrets] == taken


@pytest.mark.parametrize(
    "given", ["hidden", "whsec_", "whsec_a,", "whsec_a,hidden", "whsec_a,whsec_b,whsec_c", "sk_x"]
)
def test_another_signing_secret_is_refused_without_being_told(given: str) -> None:
    with pytest.raises(settings.SettingError, match="STRIPE_WEBHOOK_SECRET") as refused:
        settings.load({**URLS, "STRIPE_WEBHOOK_SECRET": given})
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(("given", "taken"), [("", "invoices"), ("meters", "meters")])
def test_the_mode_is_invoices_unless_it_is_said(given: str, taken: str) -> None:
    assert settings.load({**URLS, "STRIPE_MODE": given}).stripe_mode == taken


def test_a_ledger_with_another_mode_says_so_in_one_line_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**URLS, "STRIPE_MODE": "metres"}.items():
        monkeypatch.setenv(name, value)
    assert start() == 2
    assert capsys.readouterr() == ("", "ledger: STRIPE_MODE: must be one of invoices, meters\n")
