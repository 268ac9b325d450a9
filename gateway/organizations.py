"""Organisations over HTTP: who may read and describe them, and what may not be said."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from msgspec import UNSET

from gateway.accounts import Accounts
from gateway.auth import Action, Principal, Reach
from gateway.messages import decode, encoder
from gateway.organization_messages import (
    OrganizationAnswer,
    OrganizationList,
    OrganizationListQuery,
    OrganizationRequest,
    organization_decoder,
)
from gateway.problems import Kind, Problem, unavailable
from gateway.subscription_changes import Now, given, version_of
from ledger import db, organizations, store
from ledger.domain.organization import RETENTION_YEARS, Contact, Organization
from ledger.domain.period import is_zone, zone
from ledger.organizations import StaleOrganization, Unprotected
from ledger.store.organizations import Stored

_UNDESCRIBED = Organization(name="")


class Organizations:
    """The organisation routes, free of HTTP."""

    def __init__(self, accounts: Accounts, pool: db.Pool, now: Now) -> None:
        self._accounts = accounts
        self._pool = pool
        self._now = now

    async def read(self, principal: Principal, name: str) -> tuple[bytes, dict[str, str]]:
        """`GET /organizations/{organization_id}`: as it was described, with its ETag; one that
        nobody described has no ETag, and is found when it has a subscription or users."""
        reach = principal.reach(Action.READ_ORGANIZATION)
        organization_id = self._accounts.identify(name, "organization_id")
        if reach is not Reach.ALL and not principal.acts_for(organization_id):
            raise _not_found(foreign=True)
        try:
            found = await store.organizations.find(self._pool, organization_id)
            if found is None and not await store.organizations.is_known(
                self._pool, organization_id
            ):
                raise _not_found()
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        if found is None:
            return encoder.encode(_answer(organization_id, _UNDESCRIBED)), {}
        return encoder.encode(_stored(found)), {"ETag": f'"{found.version}"'}

    async def page(self, principal: Principal, query: OrganizationListQuery) -> bytes:
        """`GET /organizations`: those that were described, newest first."""
        if principal.reach(Action.READ_ORGANIZATION) is not Reach.ALL:
            raise Problem(Kind.FORBIDDEN, "your role does not allow this list")
        try:
            before = None
            if query.starting_after is not None:
                before = await store.organizations.find(self._pool, query.starting_after)
                if before is None:
                    raise Problem(
                        Kind.INVALID_REQUEST, "starting_after is no organization of this list"
                    )
            found = await store.organizations.page(self._pool, before, query.limit + 1)
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        data = [_stored(one) for one in found[: query.limit]]
        return encoder.encode(OrganizationList(data=data, has_more=len(found) > query.limit))

    async def put(
        self, principal: Principal, name: str, body: bytes, if_match: str | None
    ) -> tuple[bytes, bool, dict[str, str]]:
        """`PUT /organizations/{organization_id}`: answer, whether it is new, headers."""
        principal.reach(Action.CHANGE)
        is_admin = "admin" in principal.roles
        organization_id = self._accounts.identify(name, "organization_id")
        asked = decode(organization_decoder, body)
        # What protects records is given up by an admin who says so, never by leaving it out.
        meant = asked.legal_hold is not UNSET and asked.retention_class is not UNSET
        try:
            now = await self._now()
            made, is_new = await organizations.put(
                self._pool,
                organization_id,
                _described(asked, now),
                actor=principal.subject,
                now=now,
                if_version=version_of(if_match),
                may_unprotect=is_admin and meant,
            )
        except StaleOrganization:
            raise Problem(Kind.STALE, "the organization has changed; read it again") from None
        except Unprotected:
            raise _needed(is_admin) from None
        except db.UNAVAILABLE:
            raise unavailable(
                "the ledger's database does not answer", outcome_unknown=True
            ) from None
        return encoder.encode(_stored(made)), is_new, {"ETag": f'"{made.version}"'}


def _described(asked: OrganizationRequest, now: datetime) -> Organization:
    """What is asked for, or the problem with it."""
    timezone = given(asked.timezone) or "UTC"
    if not is_zone(timezone):
        raise Problem(Kind.INVALID_REQUEST, "timezone is no IANA time zone")
    signed, signed_on = asked.baa == "signed", given(asked.baa_signed_on)
    if signed != (signed_on is not None):
        raise Problem(Kind.INVALID_REQUEST, "baa_signed_on goes with a baa that is signed")
    if signed_on is not None and signed_on > now.astimezone(zone(timezone)).date():
        raise Problem(Kind.INVALID_REQUEST, "baa_signed_on is still to come")
    reason = given(asked.legal_hold_reason)
    if (asked.legal_hold is True) != (reason is not None):
        raise Problem(Kind.INVALID_REQUEST, "legal_hold_reason goes with a legal_hold")
    contact = given(asked.billing_contact)
    return Organization(
        name=asked.name,
        timezone=timezone,
        baa="signed" if signed else "none",
        baa_signed_on=signed_on,
        retention_class=given(asked.retention_class) or "standard",
        legal_hold_reason=reason,
        cost_centers=given(asked.cost_centers) or {},
        billing_contact=Contact(contact.name, contact.email) if contact else None,
        stripe_customer=given(asked.stripe_customer),
    )


def _needed(is_admin: bool) -> Problem:
    """What it takes to give up what protects an organisation's records."""
    if not is_admin:
        return Problem(
            Kind.FORBIDDEN, "only an admin lifts a legal hold or lowers the retention class"
        )
    return Problem(
        Kind.INVALID_REQUEST,
        "say legal_hold and retention_class both: left out, they would lift its legal hold or"
        " lower its retention class",
    )


def _stored(one: Stored) -> OrganizationAnswer:
    return _answer(one.organization_id, one.organization, one.created_at, one.updated_at)


def _answer(
    organization_id: UUID,
    one: Organization,
    created_at: datetime | None = None,
    updated_at: datetime | None = None,
) -> OrganizationAnswer:
    return OrganizationAnswer(
        organization_id=organization_id,
        name=one.name or None,
        timezone=one.timezone,
        baa=one.baa,
        baa_signed_on=one.baa_signed_on,
        retention_class=one.retention_class,
        retention_years=RETENTION_YEARS[one.retention_class],
        legal_hold=one.legal_hold,
        legal_hold_reason=one.legal_hold_reason,
        cost_centers=one.cost_centers,
        billing_contact=one.billing_contact,
        stripe_customer=one.stripe_customer,
        created_at=created_at,
        updated_at=updated_at,
    )


def _not_found(*, foreign: bool = False) -> Problem:
    return Problem(Kind.NOT_FOUND, "there is no such organization", denied=foreign)
