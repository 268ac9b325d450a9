"""Signed heads: where every chain was at an instant, for keeping elsewhere.

A chain alone cannot tell that its end was cut off, or that all of it was made anew. A head that
was kept outside the database can, and only who has the key can make one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from ledger import store
from ledger.db import Connection
from ledger.domain.audit import CONTROL
from ledger.domain.seal import chain_of
from ledger.settings import Secret, SettingError, Settings

KIND = "billing-audit-heads"
_NAME = "AUDIT_SIGNING_KEY"
_FILE = "audit-key.pem"


class SignedHeads(msgspec.Struct, frozen=True):
    """Sequence and hash of every chain at an instant (UTC)."""

    kind: str
    at: datetime
    heads: Mapping[str, tuple[int, str]]


class BadHead(Exception):
    """What was given is no signed head, or not by this key."""


async def now(connection: Connection, at: datetime) -> SignedHeads:
    """Where the chains are now."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        control = await store.audit.head(connection)
        usage = await store.seals.usage_heads(connection)
    heads = {chain_of(one): (head.position, head.head.hex()) for one, head in usage.items()}
    if control is not None:
        heads[CONTROL] = control.sequence, control.head.hex()
    return SignedHeads(KIND, at.astimezone(UTC), heads)


def sign(heads: SignedHeads, key: ECKey) -> str:
    """One line: a compact JWS (RFC 7515), ES256."""
    header = {"alg": "ES256", "kid": key.thumbprint(), "typ": KIND}
    payload = msgspec.json.encode(heads, order="deterministic")
    return jws.serialize_compact(header, payload, key, algorithms=["ES256"])


def read(line: str, key: ECKey) -> SignedHeads:
    """What a line says that this key has signed. Raises `BadHead`."""
    try:
        said = jws.deserialize_compact(line.strip(), key, algorithms=["ES256"])
    except (JoseError, ValueError):
        raise BadHead("is not a head that this key has signed") from None
    try:
        heads = msgspec.json.decode(said.payload or b"", type=SignedHeads)
    except msgspec.MsgspecError:
        raise BadHead("is signed by this key, but is no head") from None
    if heads.kind != KIND or heads.at.tzinfo is None:
        raise BadHead("is signed by this key, but is no head")
    return heads


def signing_key(settings: Settings) -> ECKey | None:
    """The key that is set; in dev one that is made in the data dir; else None. Raises
    `SettingError`."""
    if settings.audit_signing_key is not None:
        return _key(settings.audit_signing_key, _NAME)
    return _dev_key(settings.data_dir / _FILE) if settings.is_dev else None


def public_key(path: Path) -> ECKey:
    """The key in a file, for who checks heads and must not sign any. Raises `BadHead`."""
    try:
        return ECKey.import_key(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, JoseError):
        raise BadHead("--key: the file holds no P-256 key in PEM") from None


def _key(secret: Secret, name: str) -> ECKey:
    try:
        key = ECKey.import_key(secret.reveal())
        if key.is_private and key.curve_name == "P-256":
            return key
    except (ValueError, JoseError):
        pass
    raise SettingError(name, "must be a private key of the curve P-256, in PEM") from None


def _dev_key(path: Path) -> ECKey:
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = ECKey.generate_key("P-256").as_pem(private=True)
            draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(made)
            try:
                os.link(draft, path)  # refuses where another process was first
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return _key(Secret(path.read_text(encoding="utf-8")), "BILLING_DATA_DIR")
    except OSError as error:
        raise SettingError("BILLING_DATA_DIR", f"{path}: {error.strerror}") from None
