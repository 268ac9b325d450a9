"""Tokens of the dev environment, signed with a key that never leaves the data dir."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec
from joserfc import jwt
from joserfc.jwk import ECKey

from gateway.datadir import write_private
from ledger import clock
from ledger.auth_settings import DEV_ISSUER as DEV_ISSUER
from ledger.domain.ids import dev_uuid
from ledger.settings import SettingError

DEV_AUDIENCE = "billing"
Role = Literal["service", "user", "org_admin", "finance", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
_LIFETIME_S = 12 * 3600
_SERVICE_SCOPE = "usage:write usage:read"


def dev_key(data_dir: Path) -> ECKey:
    """The ES256 key of this data dir, made on first use; its thumbprint is the key id."""
    path = data_dir / "dev-key.json"
    if not path.exists():
        made = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
        draft = path.with_name(f"dev-key.{os.getpid()}.draft")
        write_private(draft, msgspec.json.encode(made.as_dict(private=True)))
        try:
            os.link(draft, path)  # refuses where another process was first
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    try:
        return ECKey.import_key(msgspec.json.decode(path.read_bytes()))
    except (OSError, ValueError):
        raise SettingError("BILLING_DATA_DIR", f"{path} is not a key; remove it") from None


def mint(
    key: ECKey,
    role: Role,
    *,
    user: str | None = None,
    organizations: Sequence[str] = (),
    scope: str | None = None,
) -> str:
    """A signed token. Readable names such as `test-user` become their stable UUIDs.

    A service without organisations may act for all of them.
    """
    issued_at = int(clock.now().timestamp())
    claims: dict[str, object] = {
        "iss": DEV_ISSUER,
        "aud": DEV_AUDIENCE,
        "sub": str(dev_uuid(user)) if user else f"{role}-dev",
        "roles": [role],
        "iat": issued_at,
        "exp": issued_at + _LIFETIME_S,
    }
    org = ["*" if name == "*" else str(dev_uuid(name)) for name in organizations]
    if not org and role == "service":
        org = ["*"]
    if org:
        claims["org"] = org[0] if len(org) == 1 else org
    if granted := scope or (_SERVICE_SCOPE if role == "service" else None):
        claims["scope"] = granted
    return jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key, algorithms=["ES256"])
