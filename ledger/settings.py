"""Every environment variable the service reads, in one frozen struct.

Only command lines read ``os.environ`` besides: a missing or bad variable is one clear line
that names it, before any socket is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

T = TypeVar("T", bound=str)
ProfileName = Literal["dev-fast", "default", "replicated"]


class SettingError(ValueError):
    """An environment variable is missing or cannot be used; the message names it."""

    def __init__(self, variable: str, reason: str) -> None:
        self.variable = variable
        super().__init__(f"{variable}: {reason}")


class Secret:
    """A text that shows in no repr, log line or traceback."""

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(...)"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration in force; see ``docs/configuration.md`` for each variable."""

    environment: Literal["dev", "production"] = "dev"
    host: str = "127.0.0.1"
    port: int = 8081
    database_url: str
    redis_url: str
    default_tier: str = "basic"
    quota_enforcement: bool = True
    data_dir: Path = Path(".data")
    backup_key_file: Path | None = None
    gateway_workers: int = 1
    gateway_connections: int = 10_000
    partitions: int = 16
    durability: ProfileName = "default"
    durability_replicas: int = 0
    stream_retention_seconds: int = 600
    undrained_cap: int = 1_000_000
    invoice_grace_seconds: int = 3600
    invoice_park_above: Decimal = Decimal(100_000)
    test_clock: bool = False
    stripe_api_key: Secret | None = None
    stripe_api_base: str | None = None
    stripe_webhook_secrets: tuple[Secret, ...] = ()
    audit_signing_key: Secret | None = None
    audit_service_url: str | None = None
    auth_audience: str = "billing"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def invoice_grace(self) -> timedelta:
        return timedelta(seconds=self.invoice_grace_seconds)

    @property
    def is_dev(self) -> bool:
        return self.environment == "dev"


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process. Raises `SettingError` naming the first bad variable."""
    read = _Reader(environ)
    durability: ProfileName = read.choice(
        "DURABILITY", "default", ("dev-fast", "default", "replicated")
    )
    settings = Settings(
        environment=read.choice("BILLING_ENV", "dev", ("dev", "production")),
        host=read.text("HOST", "127.0.0.1"),
        port=read.integer("PORT", 8081, 1, 65535),
        database_url=read.url("DATABASE_URL", ("postgresql", "postgres")),
        redis_url=redis_url(read.secret("REDIS_URL") or ""),
        default_tier=read.text("BILLING_TIER_DEFAULT", "basic"),
        quota_enforcement=read.boolean("QUOTA_ENFORCEMENT", True),
        data_dir=Path(read.text("BILLING_DATA_DIR", ".data")),
        backup_key_file=read.path("BACKUP_KEY_FILE"),
        gateway_workers=read.integer("GATEWAY_WORKERS", 1, 1, 256),
        gateway_connections=read.integer("GATEWAY_CONNECTIONS", 10_000, 1, 1_000_000),
        partitions=read.integer("PARTITIONS", 16, 1, 1024),
        durability=durability,
        durability_replicas=_replicas(read, durability),
        stream_retention_seconds=read.integer("STREAM_RETENTION_SECONDS", 600, 0, 7 * 86400),
        undrained_cap=read.integer("UNDRAINED_CAP", 1_000_000, 1, 1_000_000_000),
        invoice_grace_seconds=read.integer("INVOICE_GRACE_SECONDS", 3600, 0, 7 * 86400),
        invoice_park_above=Decimal(read.integer("INVOICE_PARK_ABOVE", 100_000, 1, 10**12)),
        test_clock=read.boolean("TEST_CLOCK", False),
        stripe_api_key=_stripe_key(read),
        stripe_api_base=_stripe_base(read),
        stripe_webhook_secrets=_webhook_secrets(read),
        audit_signing_key=_secret(read.secret("AUDIT_SIGNING_KEY")),
        audit_service_url=_audit_service(read),
        auth_audience=read.text("AUTH_AUDIENCE", "billing"),
        log_level=read.choice("LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
    )
    if settings.test_clock and not settings.is_dev:
        raise SettingError("TEST_CLOCK", "is never for production: time there is what it is")
    if not settings.is_dev:
        raise SettingError(
            "BILLING_ENV", "production needs tokens of an auth service, not verified yet; use dev"
        )
    if not _is_loopback(settings.host):
        # A caller without a token is trusted here, so nobody else may reach the port.
        raise SettingError("HOST", "must be a loopback address when BILLING_ENV=dev")
    return settings


def _replicas(read: _Reader, durability: str) -> int:
    """How many replicas must have synced what is answered; 0 where none is asked."""
    name = "DURABILITY_REPLICAS"
    given = read.optional(name) is not None
    if durability != "replicated":
        if given:
            raise SettingError(name, "is for DURABILITY=replicated only; unset it, or set that")
        return 0
    if not given:
        raise SettingError(name, "is required when DURABILITY=replicated: every promotable replica")
    return read.integer("DURABILITY_REPLICAS", 1, 1, 16)


def _stripe_key(read: _Reader) -> Secret | None:
    key = read.secret("STRIPE_API_KEY")
    if key is None:
        return None
    if not re.fullmatch(r"[sr]k_[A-Za-z0-9_]{1,250}", key):
        # A publishable key (pk_) may do nothing of this; a line break would end the header.
        raise SettingError(
            "STRIPE_API_KEY", "is not a secret or restricted key of Stripe's (sk_..., rk_...)"
        )
    return Secret(key)


def _stripe_base(read: _Reader) -> str | None:
    """Where Stripe's API is, if elsewhere; the key goes there, so over TLS or not off this host."""
    base = read.optional("STRIPE_API_BASE")
    if base is None:
        return None
    try:
        parts = urlsplit(base)
        safe = parts.scheme == "https" or _is_loopback(parts.hostname or "")
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        usable = usable and not (parts.path.strip("/") or parts.query or "@" in parts.netloc)
    except ValueError:
        usable = safe = False
    if not (usable and safe):
        raise SettingError("STRIPE_API_BASE", "must be like https://host, or http:// of this host")
    return base.rstrip("/")


def _webhook_secrets(read: _Reader) -> tuple[Secret, ...]:
    """Two while one is being replaced."""
    found = read.secret("STRIPE_WEBHOOK_SECRET")
    if found is None:
        return ()
    secrets = [one.strip() for one in found.split(",")]
    if len(secrets) > 2 or not all(re.fullmatch(r"whsec_[!-~]{1,250}", one) for one in secrets):
        raise SettingError(
            "STRIPE_WEBHOOK_SECRET", "must be a signing secret of Stripe's (whsec_...), or two: a,b"
        )
    return tuple(Secret(one) for one in secrets)


def _secret(text: str | None) -> Secret | None:
    return None if text is None else Secret(text)


def _audit_service(read: _Reader) -> str | None:
    """Where audit events are sent; of a base alone the path is the usual one."""
    url = read.optional("AUDIT_SERVICE_URL")
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        usable = usable and not (parts.query or parts.fragment or "@" in parts.netloc)
    except ValueError:
        usable = False
    if not usable:
        raise SettingError("AUDIT_SERVICE_URL", "must be like http://audit-logging:8084")
    return url if parts.path.strip("/") else f"{url.rstrip('/')}/api/v1/audit/events"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def redis_url(value: str) -> str:
    """``REDIS_URL`` with its scheme; the spec's bare ``localhost:6379`` is accepted."""
    if not value:
        raise SettingError("REDIS_URL", "is required (example: redis://localhost:6379)")
    url = value if "://" in value else f"redis://{value}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SettingError("REDIS_URL", "is not a Redis URL (example: redis://localhost:6379)")
    return url


class _Reader:
    """Reads one variable at a time and never repeats its value, which may be a secret."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def optional(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def text(self, name: str, default: str) -> str:
        return self.optional(name) or default

    def path(self, name: str) -> Path | None:
        value = self.optional(name)
        return None if value is None else Path(value)

    def secret(self, name: str) -> str | None:
        """The variable, or the content of the file that ``NAME_FILE`` points to."""
        path = self.optional(f"{name}_FILE")
        if path is None:
            return self.optional(name)
        try:
            return Path(path).read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError):
            raise SettingError(f"{name}_FILE", "names a file that cannot be read") from None

    def url(self, name: str, schemes: tuple[str, ...]) -> str:
        value = self.secret(name)
        if value is None:
            raise SettingError(name, f"is required (example: {schemes[0]}://user@localhost/db)")
        try:
            parts = urlsplit(value)
            for host in parts.netloc.rpartition("@")[2].split(","):
                _ = urlsplit(f"//{host}").port  # not a number of a port: ValueError
        except ValueError:
            raise SettingError(
                name, f"is not a URL (example: {schemes[0]}://user@localhost/db)"
            ) from None
        if parts.scheme not in schemes:
            raise SettingError(name, f"must start with {schemes[0]}://")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.optional(name)
        if value is None:
            return default
        digits = value.isascii() and value.isdigit() and len(value) <= len(str(high))
        if not digits or not low <= int(value) <= high:
            raise SettingError(name, f"must be a whole number from {low} to {high}")
        return int(value)

    def boolean(self, name: str, default: bool) -> bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        value = self.optional(name)
        if value is None:
            return default
        if value.lower() not in words:
            raise SettingError(name, "must be true or false")
        return words[value.lower()]

    def choice(self, name: str, default: T, allowed: tuple[T, ...]) -> T:
        value = self.text(name, default)
        for one in allowed:
            if value == one:
                return one
        raise SettingError(name, f"must be one of {', '.join(allowed)}")
