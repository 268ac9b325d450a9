"""How the auth service is reached, and what its tokens must say."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from ledger.variables import Reader, Secret, SettingError, is_loopback

_OF_A_CLUSTER = (".svc", ".svc.cluster.local")
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


def read_auth(read: Reader) -> AuthSettings:
    """Raises `SettingError`."""
    secret = read.secret("AUTH_CLIENT_SECRET")
    found = AuthSettings(
        audience=read.text("AUTH_AUDIENCE", "billing"),
        issuer=read.optional("AUTH_ISSUER"),
        jwks_url=_url("AUTH_JWKS_URL", read.optional("AUTH_JWKS_URL")),
        introspection_url=_url("AUTH_INTROSPECTION_URL", read.optional("AUTH_INTROSPECTION_URL")),
        client_id=read.optional("AUTH_CLIENT_ID"),
        client_secret=None if secret is None else Secret(secret),
        userinfo_url=_url("AUTH_USERINFO_URL", read.optional("AUTH_USERINFO_URL")),
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


def _url(name: str, value: str | None) -> str | None:
    """Over TLS, or within this machine or cluster: who is between could else say who may do what,
    and read tokens."""
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
        usable = bool(host) and parts.port != 0
        usable = usable and not (parts.fragment or "@" in parts.netloc)
        safe = parts.scheme == "https" or (parts.scheme == "http" and _is_near(host))
    except ValueError:
        usable = safe = False
    if not (usable and safe):
        rest = "http:// of this host, or of a service of the cluster such as http://auth-rbac:8080"
        raise SettingError(name, f"must be like https://host/path, or {rest}")
    return value


def _is_near(host: str) -> bool:
    """A name of one word is a service's of the same cluster: no public name is, nor its endings."""
    is_one_word = "." not in host and ":" not in host
    return is_one_word or is_loopback(host) or host.endswith(_OF_A_CLUSTER)
