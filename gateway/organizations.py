"""Organisations over HTTP: who may read and describe them, and what may not be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from uuid import UUID

from msgspec import UNSET

from gateway.accounts import Accounts
from gateway.agreements import Agreements
from gateway.auth import Action, Principal, Reach
from gateway.guard import OF_A_COMPANY, refuse_phi
from gateway.messages import decode, encoder
from gateway.organization_messages import (
    BillingContact,
    OrganizationAnswer,
    OrganizationList,
    OrganizationListQuery,
    OrganizationRequest,
    organization_decoder,
)
from gateway.problems import Kind, Problem, unavailable
from gateway.subscription_changes import Now, given, version_of
from ledger import db, organizations, retention, store
from ledger.domain.organization import RETENTION_YEARS, Contact, Organization
from ledger.domain.period import is_zone, zone
from ledger.organizations import StaleOrganization, Unprotected
from ledger.store.organizations import Stored

_UNDESCRIBED = Organization(name="")
Books = Mapping[UUID, date]


class Organizations:
    """The organisation routes, free of HTTP."""

    def __init__(self, accounts: Accounts, agreements: Agreements, pool: db.Pool, now: Now) -> None:
        self._accounts = accounts
        self._agreements = agreements
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
            books = await self._books([organization_id])
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        if found is None:
            return encoder.encode(_answer(organization_id, _UNDESCRIBED, books)), {}
        return encoder.encode(_stored(found, books)), {"ETag": f'"{found.version}"'}

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
            books = await self._books([one.organization_id for one in found])
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        data = [_stored(one, books) for one in found[: query.limit]]
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
            books = await self._books([organization_id])
        except StaleOrganization:
            raise Problem(Kind.STALE, "the organization has changed; read it again") from None
        except Unprotected:
            raise _needed(is_admin) from None
        except db.UNAVAILABLE:
            raise unavailable(
                "the ledger's database does not answer", outcome_unknown=True
            ) from None
        self._agreements.forget(organization_id)
        return encoder.encode(_stored(made, books)), is_new, {"ETag": f'"{made.version}"'}

    async def _books(self, organizations: Sequence[UUID]) -> Books:
        """Until when the books of organisations must be open, of those whose must be today."""
        today = (await self._now()).date()
        found = await retention.books_until(self._pool, organizations)
        return {one: end for one, end in found.items() if today <= end}


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
    centers = given(asked.cost_centers) or {}
    _refuse_phi(asked.name, contact, reason, centers)
    return Organization(
        name=asked.name,
        timezone=timezone,
        baa="signed" if signed else "none",
        baa_signed_on=signed_on,
        retention_class=given(asked.retention_class) or "standard",
        legal_hold_reason=reason,
        cost_centers=centers,
        billing_contact=Contact(contact.name, contact.email) if contact else None,
        stripe_customer=given(asked.stripe_customer),
    )


def _refuse_phi(
    name: str, contact: BillingContact | None, reason: str | None, centers: dict[str, str]
) -> None:
    """A contact is personal and meant to be: business data, but not a patient's."""
    refuse_phi("name", name, OF_A_COMPANY)
    if contact:
        refuse_phi("billing_contact name", contact.name, OF_A_COMPANY)
        refuse_phi("billing_contact email", contact.email.replace("@", " "), OF_A_COMPANY)
    refuse_phi("legal_hold_reason", reason or "")
    for center, line in centers.items():
        refuse_phi("cost_centers", center)
        refuse_phi("cost_centers", line)


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


def _stored(one: Stored, books: Books) -> OrganizationAnswer:
    return _answer(one.organization_id, one.organization, books, one.created_at, one.updated_at)


def _answer(
    organization_id: UUID,
    one: Organization,
    books: Books,
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
        access_to_books_until=books.get(organization_id),
        cost_centers=one.cost_centers,
        billing_contact=one.billing_contact,
        stripe_customer=one.stripe_customer,
        created_at=created_at,
        updated_at=updated_at,
    )


def _not_found(*, foreign: bool = False) -> Problem:
    return Problem(Kind.NOT_FOUND, "there is no such organization", denied=foreign)
