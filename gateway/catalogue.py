"""The catalogue over HTTP: plans, whose versions are never edited, and usage types."""

from __future__ import annotations

import re

from msgspec import UNSET

from gateway.auth import Action, Principal
from gateway.catalogue_messages import (
    PlanAnswer,
    PlanList,
    PlanQuery,
    UsageTypeAnswer,
    UsageTypeList,
    plan_decoder,
    usage_type_decoder,
)
from gateway.guard import refuse_phi
from gateway.messages import decode, encoder
from gateway.nested import decode_nested
from gateway.problems import Kind, Problem, unavailable
from gateway.subscription_changes import version_of
from gateway.usage_types import UsageTypes
from ledger import catalogue, clock, db, store
from ledger.catalogue import DecimalPlacesChanged, StalePlan
from ledger.domain.plan import Plan
from ledger.domain.plan_problems import PlanError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}\Z")


class Catalogue:
    """The routes of plans and usage types, free of HTTP."""

    def __init__(self, pool: db.Pool, usage_types: UsageTypes, default_tier: str) -> None:
        self._pool = pool
        self._usage_types = usage_types
        self._default_tier = default_tier

    async def plans(self, principal: Principal) -> bytes:
        """`GET /plans`: the newest version of each."""
        principal.reach(Action.CHANGE)
        try:
            found = await store.catalogue.plans(self._pool)
        except db.UNAVAILABLE:
            raise _away() from None
        return encoder.encode(PlanList(data=[_answer(*one) for one in found]))

    async def plan(
        self, principal: Principal, tier: str, query: PlanQuery
    ) -> tuple[bytes, dict[str, str]]:
        """`GET /plans/{tier}`: the newest public version or the one that is named, with its
        ETag."""
        principal.reach(Action.CHANGE)
        try:
            found = await store.plan(self._pool, tier, query.version)
        except db.UNAVAILABLE:
            raise _away() from None
        if found is None:
            raise Problem(Kind.NOT_FOUND, "there is no such plan")
        return encoder.encode(_answer(*found)), {"ETag": f'"{found[0]}"'}

    async def put_plan(
        self, principal: Principal, tier: str, body: bytes, if_match: str | None
    ) -> tuple[bytes, dict[str, str]]:
        """`PUT /plans/{tier}`: a new version, unless the newest says the same."""
        principal.reach(Action.CHANGE)
        plan = decode_nested(plan_decoder, body, Plan, "the body")
        refuse_phi("name", plan.name)
        if plan.tier != tier:
            raise Problem(Kind.INVALID_REQUEST, "tier is not the one in the path")
        try:
            version = await catalogue.put_plan(
                self._pool,
                plan,
                actor=principal.subject,
                now=clock.now(),
                if_version=version_of(if_match),
                default=self._default_tier,
            )
        except PlanError as error:
            raise Problem(Kind.INVALID_REQUEST, str(error)) from None
        except StalePlan:
            raise Problem(Kind.STALE, "the plan has a newer version; read it again") from None
        except db.UNAVAILABLE:
            raise unavailable(
                "the ledger's database does not answer", outcome_unknown=True
            ) from None
        return encoder.encode(_answer(version, plan)), {"ETag": f'"{version}"'}

    async def usage_types(self, principal: Principal) -> bytes:
        """`GET /usage-types`."""
        principal.reach(Action.CHANGE)
        try:
            found = await store.catalogue.list_usage_types(self._pool)
        except db.UNAVAILABLE:
            raise _away() from None
        data = [
            UsageTypeAnswer(
                usage_type=one.usage_type,
                decimal_places=one.decimal_places,
                description=one.description,
            )
            for one in found
        ]
        return encoder.encode(UsageTypeList(data=data))

    async def put_usage_type(self, principal: Principal, name: str, body: bytes) -> bytes:
        """`PUT /usage-types/{name}`: a new one, or what is said about one."""
        principal.reach(Action.MAKE_USAGE_TYPES)
        if not _NAME.match(name):
            raise Problem(
                Kind.INVALID_REQUEST, "a name has letters a to z, digits and _, 50 at most"
            )
        asked = decode(usage_type_decoder, body)
        about = None if asked.description is UNSET else asked.description
        refuse_phi("description", about or "")
        try:
            said = await catalogue.put_usage_type(
                self._pool,
                name,
                asked.decimal_places,
                about,
                actor=principal.subject,
                now=clock.now(),
            )
        except DecimalPlacesChanged:
            raise Problem(
                Kind.CONFLICT, "it has other decimal places already, and they never change"
            ) from None
        except db.UNAVAILABLE:
            raise unavailable(
                "the ledger's database does not answer", outcome_unknown=True
            ) from None
        self._usage_types.forget()
        return encoder.encode(
            UsageTypeAnswer(
                usage_type=name,
                decimal_places=asked.decimal_places,
                description=said,
            )
        )


def _answer(version: int, plan: Plan) -> PlanAnswer:
    return PlanAnswer(
        tier=plan.tier,
        version=version,
        name=plan.name,
        currency=plan.currency,
        interval=plan.interval,
        base_fee=plan.base_fee,
        trial_days=plan.trial_days,
        premium=plan.premium,
        entitlements=plan.entitlements,
        prices=plan.prices,
    )


def _away(*, outcome_unknown: bool = False) -> Problem:
    return unavailable("the ledger's database does not answer", outcome_unknown=outcome_unknown)
