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
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from ledger.auth_settings import AuthSettings, read_auth, require_auth
from ledger.domain.metadata_keys import Key, declared
from ledger.variables import Reader, is_loopback
from ledger.variables import Secret as Secret
from ledger.variables import SettingError as SettingError

ProfileName = Literal["dev-fast", "default", "replicated"]
StripeMode = Literal["invoices", "meters"]


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
    stripe_mode: StripeMode = "invoices"
    stripe_webhook_secrets: tuple[Secret, ...] = ()
    auth: AuthSettings = AuthSettings()
    metadata_keys: Mapping[str, Key] = {}
    audit_signing_key: Secret | None = None
    audit_service_url: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def invoice_grace(self) -> timedelta:
        return timedelta(seconds=self.invoice_grace_seconds)

    @property
    def is_dev(self) -> bool:
        return self.environment == "dev"


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process. Raises `SettingError` naming the first bad variable."""
    read = Reader(environ)
    environment: Literal["dev", "production"] = read.choice(
        "BILLING_ENV", "dev", ("dev", "production")
    )
    durability: ProfileName = read.choice(
        "DURABILITY", "default", ("dev-fast", "default", "replicated")
    )
    settings = Settings(
        environment=environment,
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
        stripe_mode=read.choice("STRIPE_MODE", "invoices", ("invoices", "meters")),
        stripe_webhook_secrets=_webhook_secrets(read),
        auth=read_auth(read),
        metadata_keys=_metadata_keys(read),
        audit_signing_key=_secret(read.secret("AUDIT_SIGNING_KEY")),
        audit_service_url=_audit_service(read),
        log_level=read.choice("LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
    )
    if settings.test_clock and not settings.is_dev:
        raise SettingError("TEST_CLOCK", "is never for production: time there is what it is")
    if settings.is_dev and not is_loopback(settings.host):
        # A caller without a token is trusted here, so nobody else may reach the port.
        raise SettingError("HOST", "must be a loopback address when BILLING_ENV=dev")
    return settings


def load_gateway(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of the gateway, which besides must be able to tell who calls."""
    settings = load(environ)
    if not settings.is_dev:
        require_auth(settings.auth)
    return settings


def _replicas(read: Reader, durability: str) -> int:
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


def _stripe_key(read: Reader) -> Secret | None:
    key = read.secret("STRIPE_API_KEY")
    if key is None:
        return None
    if not re.fullmatch(r"[sr]k_[A-Za-z0-9_]{1,250}", key):
        # A publishable key (pk_) may do nothing of this; a line break would end the header.
        raise SettingError(
            "STRIPE_API_KEY", "is not a secret or restricted key of Stripe's (sk_..., rk_...)"
        )
    return Secret(key)


def _stripe_base(read: Reader) -> str | None:
    """Where Stripe's API is, if elsewhere; the key goes there, so over TLS or not off this host."""
    base = read.optional("STRIPE_API_BASE")
    if base is None:
        return None
    try:
        parts = urlsplit(base)
        safe = parts.scheme == "https" or is_loopback(parts.hostname or "")
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        usable = usable and not (parts.path.strip("/") or parts.query or "@" in parts.netloc)
    except ValueError:
        usable = safe = False
    if not (usable and safe):
        raise SettingError("STRIPE_API_BASE", "must be like https://host, or http:// of this host")
    return base.rstrip("/")


def _webhook_secrets(read: Reader) -> tuple[Secret, ...]:
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


def _audit_service(read: Reader) -> str | None:
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


def _metadata_keys(read: Reader) -> Mapping[str, Key]:
    given = read.optional("METADATA_KEYS")
    try:
        return {} if given is None else declared(given)
    except ValueError as error:
        raise SettingError("METADATA_KEYS", str(error)) from None


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
