"""Listing what was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from gateway.accounts import Accounts
from gateway.auth import Action, Principal, Reach
from gateway.messages import UsageList, UsageQuery, UsageRecordAnswer, encoder, utc
from gateway.problems import Kind, Problem, unavailable
from ledger import db, store


class UsageLists:
    """`GET /usage`, free of HTTP."""

    def __init__(self, accounts: Accounts, pool: db.Pool) -> None:
        self._accounts = accounts
        self._pool = pool

    async def page(self, principal: Principal, query: UsageQuery) -> bytes:
        """`GET /usage`: recorded usage, newest first, as far as the caller may see it."""
        reach = principal.reach(Action.READ_USAGE)
        user_id = self._given(query.user_id, "user_id")
        organization_id = self._given(query.organization_id, "organization_id")
        organizations = None if organization_id is None else [organization_id]
        if reach is Reach.OWN:
            if user_id not in (None, principal.user_id) or principal.user_id is None:
                raise Problem(Kind.FORBIDDEN, "only your own usage may be read")
            user_id = principal.user_id
        elif reach is Reach.ORGANIZATIONS:
            if organization_id is not None and not principal.acts_for(organization_id):
                raise Problem(Kind.NOT_FOUND, "there is no such organization", denied=True)
            organizations = organizations or list(principal.organizations)
        if user_id is None and organizations is None:
            raise Problem(Kind.INVALID_REQUEST, "user_id or organization_id is needed")
        try:
            rows = await self._rows(query, user_id, organizations)
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        data = [listed(row) for row in rows[: query.limit]]
        return encoder.encode(UsageList(data=data, has_more=len(rows) > query.limit))

    async def _rows(
        self, query: UsageQuery, user_id: UUID | None, organizations: list[UUID] | None
    ) -> list[dict[str, Any]]:
        after: tuple[datetime, UUID] | None = None
        if query.starting_after is not None:
            cursor = self._accounts.identify(query.starting_after, "starting_after")
            after = await store.usage_position(self._pool, cursor, user_id, organizations)
            if after is None:
                raise Problem(Kind.INVALID_REQUEST, "starting_after is not a usage_id of this list")
        return await store.list_usage(
            self._pool,
            user_id=user_id,
            organization_ids=organizations,
            usage_type=query.usage_type,
            since=utc(query.from_, "from"),
            until=utc(query.to, "to"),
            after=after,
            count=query.limit + 1,
        )

    def _given(self, text: str | None, what: str) -> UUID | None:
        return None if text is None else self._accounts.identify(text, what)


def listed(row: Mapping[str, Any]) -> UsageRecordAnswer:
    """A row of `usage_records` as callers see it."""
    fields = {name: row[name] for name in UsageRecordAnswer.__struct_fields__}
    for name in ("quantity", "used_after", "pool_used_after", "quota_remaining"):
        if fields[name] is not None:
            fields[name] = _plain(fields[name])
    fields["billing_period"] = fields["billing_period"].isoformat()
    if fields["metadata"] is not None:
        fields["metadata"] = msgspec.json.decode(fields["metadata"], type=dict[str, str])
    return UsageRecordAnswer(**fields)


def _plain(number: Decimal) -> Decimal:
    """Without the zeros that NUMERIC(22,6) adds, and never with an exponent."""
    text = f"{number:f}"
    return Decimal(text.rstrip("0").rstrip(".") if "." in text else text)
