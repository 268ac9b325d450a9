"""Beginning and changing subscriptions: who may, what is asked, what went wrong."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from gateway.accounts import Accounts
from gateway.auth import Action, Principal
from gateway.guard import refuse_phi
from gateway.messages import decode, encoder
from gateway.nested import decode_nested
from gateway.once import Answer, asked_once, key_reused, replay
from gateway.problems import Kind, Problem, unavailable
from gateway.subscription_answers import preview, shown
from gateway.subscription_messages import (
    SubscriptionQuery,
    action_decoder,
    cancel_decoder,
    change_decoder,
    create_decoder,
    overrides_decoder,
)
from ledger import db
from ledger.domain.overrides import Overrides
from ledger.domain.period import is_zone
from ledger.domain.plan import Scope
from ledger.domain.plan_problems import PlanError
from ledger.domain.subscription import NotAllowed
from ledger.once import KeyReused, Replayed
from ledger.subscriptions import (
    Address,
    Exists,
    NoSubscription,
    Outcome,
    Stale,
    Subscriptions,
)
from ledger.wishes import NoPlan, Verb, Wish

T = TypeVar("T")
Now = Callable[[], Awaitable[datetime]]
"""The service's time; see `ledger.service_time`."""
_ETAG = re.compile(r'"([0-9]{1,18})"\Z')


class SubscriptionChanges:
    def __init__(self, accounts: Accounts, subscriptions: Subscriptions, now: Now) -> None:
        self._accounts = accounts
        self._subscriptions = subscriptions
        self._now = now

    async def create(
        self, principal: Principal, body: bytes, idempotency_key: str | None
    ) -> tuple[bytes, dict[str, str]]:
        """`POST /subscriptions`; under a key that was used, what was answered then."""
        principal.reach(Action.CHANGE)
        asked = decode(create_decoder, body)
        user_id = self._accounts.identify(asked.user_id, "user_id")
        scope: Scope = "user" if asked.scope is UNSET else asked.scope
        address = self._address(scope, user_id, given(asked.organization_id))
        timezone = given(asked.timezone)
        if timezone is not None and not is_zone(timezone):
            raise Problem(Kind.INVALID_REQUEST, "timezone is no IANA time zone")
        overrides = _overrides(asked.overrides)
        said = msgspec.structs.replace(asked, overrides=UNSET), overrides
        now = await _told(self._now())

        async def told(_: db.Executor, outcome: Outcome) -> Answer:
            return _answer(outcome, now)

        try:
            outcome = await _done(
                self._subscriptions.create(
                    address,
                    asked.plan_tier,
                    actor=principal.subject,
                    now=now,
                    start=given(asked.start),
                    trial_days=given(asked.trial_days),
                    timezone=timezone,
                    overrides=overrides,
                    once=asked_once(principal, idempotency_key, "create", said, told=told),
                )
            )
        except Replayed as replayed:
            return replay(replayed)
        self._accounts.forget(user_id)
        return _answer(outcome, now)

    async def act(
        self,
        principal: Principal,
        user: str,
        verb: Verb,
        query: SubscriptionQuery,
        body: bytes,
        if_match: str | None,
    ) -> tuple[bytes, dict[str, str]]:
        """`POST /subscription/{user_id}/{verb}`."""
        principal.reach(Action.CHANGE)
        user_id = self._accounts.identify(user, "user_id")
        address = self._address(query.scope, user_id, query.organization_id)
        wish, only_shown = _wish(verb, body or b"{}")
        outcome = await _done(
            self._subscriptions.act(
                address,
                wish,
                actor=principal.subject,
                now=(now := await _told(self._now())),
                if_version=version_of(if_match),
                preview=only_shown,
            )
        )
        if only_shown:
            return encoder.encode(preview(outcome, now)), {}
        self._accounts.forget(user_id)
        return _answer(outcome, now)

    def _address(self, scope: Scope, user_id: UUID, organization: str | None) -> Address:
        organization_id = self._accounts.optional(organization, Kind.INVALID_REQUEST)
        if scope == "organization" and organization_id is None:
            raise Problem(Kind.INVALID_REQUEST, "organization_id is needed")
        return Address(scope, user_id, organization_id)


def _answer(outcome: Outcome, now: datetime) -> tuple[bytes, dict[str, str]]:
    body = encoder.encode(shown(outcome.subscription, now))
    return body, {"ETag": f'"{outcome.subscription.version}"'}


def _wish(verb: Verb, body: bytes) -> tuple[Wish, bool]:
    """What is asked for, and whether it is only to be shown."""
    if verb == "change":
        change = decode(change_decoder, body)
        wish = Wish(
            verb,
            change.plan_tier,
            given(change.when),
            overrides=_overrides(change.overrides),
        )
        return wish, change.preview is True
    if verb == "cancel":
        cancel = decode(cancel_decoder, body)
        return Wish(verb, when=given(cancel.when)), cancel.preview is True
    return Wish(verb), decode(action_decoder, body).preview is True


def _overrides(raw: msgspec.Raw | UnsetType) -> Overrides | None:
    """Kept raw until here, because of the objects within."""
    if raw is UNSET:
        return None
    said = decode_nested(overrides_decoder, bytes(raw), Overrides, "overrides")
    refuse_phi("name in overrides", (said and said.name) or "")
    return said


def given(value: T | UnsetType | None) -> T | None:
    """What a field says; None when it is left out."""
    return None if value is UNSET else value


def version_of(if_match: str | None) -> int | None:
    """The version that an If-Match names; None for any. Raises the 412 problem."""
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.match(if_match.strip())
    if found is None:
        raise Problem(Kind.STALE, "If-Match is no ETag of ours")
    return int(found[1])


async def _told(now: Awaitable[datetime]) -> datetime:
    try:
        return await now
    except db.UNAVAILABLE:
        raise unavailable("the ledger's database does not answer") from None


async def _done(work: Awaitable[Outcome]) -> Outcome:
    try:
        return await work
    except NoSubscription:
        raise Problem(Kind.NOT_FOUND, "there is no such subscription") from None
    except Exists:
        raise Problem(
            Kind.CONFLICT, "there is a live subscription already; change that one"
        ) from None
    except NoPlan:
        raise Problem(
            Kind.INVALID_REQUEST, "plan_tier is not in the catalogue; GET /plans lists it"
        ) from None
    except PlanError as error:
        raise Problem(Kind.INVALID_REQUEST, f"with these overrides: {error}") from None
    except KeyReused:
        raise key_reused() from None
    except Stale:
        raise Problem(Kind.STALE, "the subscription has changed; read it again") from None
    except NotAllowed as error:
        raise Problem(Kind.CONFLICT, str(error)) from None
    except db.UNAVAILABLE:
        raise unavailable("the ledger's database does not answer", outcome_unknown=True) from None
