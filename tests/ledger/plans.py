"""Plans and subscriptions for tests, put straight into the ledger."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

import msgspec

from ledger import db
from ledger.domain.ids import dev_uuid

CALENDAR_MONTH = date(2000, 1, 1)


def allows(
    usage_type: str,
    limit: str | None,
    enforcement: str = "hard",
    *,
    scope: str = "user",
    rate: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """One entitlement; `rate` is (limit, seconds)."""
    found: dict[str, Any] = {
        "usage_type": usage_type,
        "scope": scope,
        "limit": limit,
        "enforcement": enforcement,
    }
    if rate is not None:
        found["rate_limit"] = {"limit": rate[0], "window_seconds": rate[1]}
    return found


def pool(
    usage_type: str,
    limit: str | None,
    enforcement: str = "hard",
    rate: tuple[int, int] | None = None,
) -> dict[str, Any]:
    return allows(usage_type, limit, enforcement, scope="organization", rate=rate)


async def add_plan(
    sql: db.Connection, tier: str, *entitlements: dict[str, Any], interval: str = "month"
) -> int:
    """A new version of a plan; its number."""
    version: int = await sql.fetchval(
        "INSERT INTO billing_plans (plan_tier, version, name, currency, interval, base_fee,"
        " entitlements, prices) SELECT $1::TEXT, COALESCE(MAX(version), 0) + 1, $1::TEXT, 'USD',"
        " $2, 0, $3, '[]' FROM billing_plans WHERE plan_tier = $1::TEXT RETURNING version",
        tier,
        interval,
        msgspec.json.encode(entitlements).decode(),
    )
    return version


async def subscribe(
    sql: db.Connection,
    tier: str,
    *,
    user: str,
    organization: str | None = None,
    scope: str = "user",
    status: str = "active",
    anchor: date = CALENDAR_MONTH,
    timezone: str = "UTC",
) -> UUID:
    """Puts a user, or an organisation, on the newest version of a plan."""
    found: UUID = await sql.fetchval(
        "INSERT INTO subscriptions (user_id, organization_id, scope, plan_tier, plan_version,"
        " status, anchor, timezone) SELECT $1, $2, $3, $4::TEXT, MAX(version), $5, $6, $7"
        " FROM billing_plans WHERE plan_tier = $4::TEXT RETURNING subscription_id",
        dev_uuid(user),
        dev_uuid(organization) if organization else None,
        scope,
        tier,
        status,
        anchor,
        timezone,
    )
    return found


async def on_plan(
    sql: db.Connection,
    user: str,
    *entitlements: dict[str, Any],
    organization: str | None = None,
    status: str = "active",
    anchor: date = CALENDAR_MONTH,
) -> UUID:
    """A plan made for this user and the user's subscription to it."""
    tier = f"of_{user}".replace("-", "_")
    await add_plan(sql, tier, *entitlements)
    return await subscribe(
        sql, tier, user=user, organization=organization, status=status, anchor=anchor
    )


async def organization_on_plan(
    sql: db.Connection,
    organization: str,
    *entitlements: dict[str, Any],
    status: str = "active",
    anchor: date = CALENDAR_MONTH,
) -> UUID:
    """A plan made for this organisation and its subscription, owned by user `owner`."""
    tier = f"of_{organization}".replace("-", "_")
    await add_plan(sql, tier, *entitlements)
    return await subscribe(
        sql,
        tier,
        user=f"{organization}-owner",
        organization=organization,
        scope="organization",
        status=status,
        anchor=anchor,
    )
