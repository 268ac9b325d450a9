"""How the auth service is reached, and what its tokens must say."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from ledger.variables import Reader, Secret, SettingError, is_loopback

DEV_ISSUER = "billing-dev"  # of `./run token`, whose key is on the developer's disk


class AuthSettings(msgspec.Struct, frozen=True, kw_only=True):
    """None where the auth service is not asked for that."""

    audience: str = "billing"
    issuer: str | None = None
    jwks_url: str | None = None
    introspection_url: str | None = None
    client_id: str | None = None
    client_secret: Secret | None = None
    userinfo_url: str | None = None


def read_auth(read: Reader, *, is_dev: bool) -> AuthSettings:
    """Raises `SettingError`."""
    secret = read.secret("AUTH_CLIENT_SECRET")
    found = AuthSettings(
        audience=read.text("AUTH_AUDIENCE", "billing"),
        issuer=read.optional("AUTH_ISSUER"),
        jwks_url=_url("AUTH_JWKS_URL", read.optional("AUTH_JWKS_URL"), is_dev),
        introspection_url=_url(
            "AUTH_INTROSPECTION_URL", read.optional("AUTH_INTROSPECTION_URL"), is_dev
        ),
        client_id=read.optional("AUTH_CLIENT_ID"),
        client_secret=None if secret is None else Secret(secret),
        userinfo_url=_url("AUTH_USERINFO_URL", read.optional("AUTH_USERINFO_URL"), is_dev),
    )
    _check_together(found)
    return found


def require_auth(found: AuthSettings) -> None:
    """What production needs. Raises `SettingError`."""
    if found.jwks_url is None and found.introspection_url is None:
        raise SettingError(
            "AUTH_JWKS_URL", "or AUTH_INTROSPECTION_URL is required when BILLING_ENV=production"
        )


def _check_together(found: AuthSettings) -> None:
    if found.issuer == DEV_ISSUER:
        raise SettingError("AUTH_ISSUER", "is the issuer of dev tokens; name the auth service's")
    if found.jwks_url is not None and found.issuer is None:
        raise SettingError("AUTH_ISSUER", "is required with AUTH_JWKS_URL: the iss of its tokens")
    asks = found.introspection_url is not None
    for name, given in (
        ("AUTH_CLIENT_ID", found.client_id),
        ("AUTH_CLIENT_SECRET", found.client_secret),
    ):
        if asks and given is None:
            raise SettingError(name, "is required with AUTH_INTROSPECTION_URL")
        if given is not None and not asks:
            raise SettingError(name, "is for AUTH_INTROSPECTION_URL only; unset it, or set that")
    for name, given in (("AUTH_ISSUER", found.issuer), ("AUTH_USERINFO_URL", found.userinfo_url)):
        if given is not None and found.jwks_url is None and not asks:
            raise SettingError(name, "needs AUTH_JWKS_URL or AUTH_INTROSPECTION_URL beside it")


def _url(name: str, value: str | None, is_dev: bool) -> str | None:
    """Over TLS: who is between could else say who may do what, and read tokens."""
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        usable = bool(parts.hostname) and parts.port != 0
        usable = usable and not (parts.fragment or "@" in parts.netloc)
        safe = parts.scheme == "https"
        here = is_dev and parts.scheme == "http" and is_loopback(parts.hostname or "")
    except ValueError:
        usable = safe = here = False
    if not (usable and (safe or here)):
        rest = ", or http:// of this host" if is_dev else ""
        raise SettingError(name, f"must be like https://host/path{rest}")
    return value
