"""Reading quotas, and asking before using."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from uuid import UUID

import msgspec

from gateway import limits
from gateway.accounts import Accounts
from gateway.admission import Admission
from gateway.auth import Action, Principal
from gateway.known import knowing
from gateway.messages import (
    AccountQuery,
    CheckAnswer,
    CheckRequest,
    PeriodAnswer,
    QuotaAnswer,
    QuotaEntry,
    check_decoder,
    decode,
    encoder,
)
from gateway.problems import Kind, Problem
from gateway.usage_types import UsageTypes
from ledger.domain.plan import Enforcement, Scope
from ledger.domain.quantity import QuantityError, quantity_of, units_of
from ledger.domain.usage import Terms, at_ms
from lua.keys import Account
from lua.packing import unpack_rule, unpack_state
from lua.types import Answer, Outcome

# Letters of include/quota.lua; the others stand for "no entitlement of this scope".
_ENFORCEMENT: Mapping[str, Enforcement] = {"h": "hard", "s": "soft", "w": "shadow"}


class Quotas:
    """The quota routes, free of HTTP."""

    def __init__(self, admission: Admission, accounts: Accounts, usage_types: UsageTypes) -> None:
        self._admission = admission
        self._accounts = accounts
        self._usage_types = usage_types

    async def check(self, principal: Principal, body: bytes) -> bytes:
        """`POST /quota/check`: decided by the same rules as recording; writes nothing."""
        principal.reach(Action.RECORD_USAGE)
        request = decode(check_decoder, body, Kind.INVALID_USAGE)
        account, units, places = await knowing(lambda: self._asked(principal, request))
        now, answer = await self._admission.check(account.who, request.usage_type, units)
        if answer.outcome in (Outcome.OVERFLOW, Outcome.BLOCKED):
            refused = Answer(answer.outcome, now, detail=answer.detail)
            raise limits.problem(request.usage_type, places, refused)
        remaining = answer.remaining
        return encoder.encode(
            CheckAnswer(
                allowed=answer.outcome is Outcome.ALLOWED,
                quota_remaining=None if remaining is None else quantity_of(remaining, places),
                limit=limits.bound(request.usage_type, places, answer),
            )
        )

    def _asked(self, principal: Principal, request: CheckRequest) -> tuple[Account, int, int]:
        """Account, units and decimal places of a check."""
        user_id = self._accounts.identify(request.user_id, "user_id", Kind.INVALID_USAGE)
        organization = self._accounts.optional(request.organization_id, Kind.INVALID_USAGE)
        places = self._usage_types.places(request.usage_type)
        try:
            units = units_of(bytes(request.quantity), places)
        except QuantityError as error:
            raise Problem(Kind.INVALID_USAGE, str(error)) from None
        return self._accounts.to_record(principal, user_id, organization), units, places

    async def read(self, principal: Principal, user: str, query: AccountQuery) -> bytes:
        """`GET /quota/{user_id}`: every entitlement with what is used of it."""
        user_id = self._accounts.identify(user, "user_id")
        organization: UUID | None = self._accounts.optional(
            query.organization_id, Kind.INVALID_REQUEST
        )
        account = await knowing(
            lambda: self._accounts.to_read(principal, Action.READ_USAGE, user_id, organization)
        )
        hashes = await self._admission.quota(account.who)
        terms = msgspec.msgpack.decode(hashes.user["terms"], type=Terms)
        state = unpack_state(hashes.user["state"])
        entries = await self._entries(hashes.user, "user", state.ends)
        if hashes.pool:
            pool = unpack_state(hashes.pool["state"])
            entries += await self._entries(hashes.pool, "organization", pool.ends)
        return encoder.encode(
            QuotaAnswer(
                user_id=account.user_id,
                organization_id=account.organization_id,
                plan_tier=terms.plan_tier,
                period=PeriodAnswer(start=at_ms(state.starts), end=at_ms(state.ends)),
                quotas=entries,
            )
        )

    async def _entries(
        self, fields: Mapping[str, bytes], scope: Scope, ends: int
    ) -> list[QuotaEntry]:
        entries = []
        for name, raw in fields.items():
            kind, _, usage_type = name.partition(":")
            if kind != "rule":
                continue
            rule = unpack_rule(raw)
            letter, limit = rule.enforcement, rule.limit
            if letter not in _ENFORCEMENT:
                continue
            places = await knowing(partial(self._usage_types.places, usage_type))
            used = int(fields.get(f"used:{usage_type}", b"0"))
            left = None if limit is None else max(0, limit - used)
            entries.append(
                QuotaEntry(
                    usage_type=usage_type,
                    scope=scope,
                    limit=None if limit is None else quantity_of(limit, places),
                    rollover=quantity_of(rule.rollover, places),
                    used=quantity_of(used, places),
                    held=Decimal(0),  # until there are reservations
                    remaining=None if left is None else quantity_of(left, places),
                    overage=quantity_of(0 if limit is None else max(0, used - limit), places),
                    enforcement=_ENFORCEMENT[letter],
                    exceeded=limit is not None and used > limit,
                    resets_at=at_ms(ends),
                )
            )
        return sorted(entries, key=lambda entry: entry.usage_type)
