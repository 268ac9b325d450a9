"""Which account a request is about: the user alone, or the user within an organisation."""

from __future__ import annotations

import asyncio
from functools import partial
from uuid import UUID

from msgspec import UNSET, UnsetType

from gateway.auth import Action, Principal, Reach
from gateway.guard import refuse_phi
from gateway.known import Unknown
from gateway.problems import Kind, Problem, unavailable
from ledger import clock, db, store
from ledger.domain.ids import dev_uuid, parse
from ledger.flights import SingleFlight
from lua.keys import Account

REMEMBERED_S = 60  # how long a user's organisation may be remembered
OUTAGE_S = 5  # how long the last answer stands in while Postgres does not answer
REMEMBERED_USERS = 200_000
PATIENCE_S = 2  # with Postgres, before the request is answered 503


class Accounts:
    """Resolves accounts; remembers to which organisation a user's subscription belongs."""

    def __init__(self, pool: db.Pool, *, readable_names: bool) -> None:
        self._pool = pool
        self._readable_names = readable_names
        self._organizations: dict[UUID, tuple[float, UUID | None]] = {}
        self._flights = SingleFlight()

    def identify(self, text: str, what: str, kind: Kind = Kind.INVALID_REQUEST) -> UUID:
        """The UUID a caller means. In dev a readable name stands for a stable one."""
        try:
            return parse(text)
        except ValueError:
            refuse_phi(what, text)
        if not self._readable_names:
            raise Problem(kind, f"{what} must be a UUID")
        return dev_uuid(text)

    def optional(self, text: str | UnsetType | None, kind: Kind) -> UUID | None:
        if text is None or text is UNSET:
            return None
        return self.identify(str(text), "organization_id", kind)

    def to_record(
        self, principal: Principal, user_id: UUID, organization_id: UUID | None
    ) -> Account:
        """The account to charge. Raises 400 when the token names several organisations and
        nothing says which, 403 for one that it does not name; or `Unknown`."""
        principal.reach(Action.RECORD_USAGE)
        if organization_id is None:
            organization_id = self._implied(principal, user_id)
        if organization_id is not None and not principal.acts_for(organization_id):
            raise Problem(Kind.FORBIDDEN, "the token does not name this organization")
        return Account(user_id, organization_id)

    def to_read(
        self, principal: Principal, action: Action, user_id: UUID, organization_id: UUID | None
    ) -> Account:
        """The account to show. Raises 404 for a foreign organisation's, 403 for another user of
        one's own; or `Unknown`."""
        reach = principal.reach(action)
        if organization_id is None:
            organization_id = self._implied(principal, user_id)
        if not self._may_read(principal, reach, user_id, organization_id):
            raise Problem(Kind.NOT_FOUND, "there is no such user", denied=True)
        return Account(user_id, organization_id)

    def _may_read(
        self, principal: Principal, reach: Reach, user_id: UUID, organization_id: UUID | None
    ) -> bool:
        if reach is Reach.ALL:
            return True
        named = organization_id is not None and principal.acts_for(organization_id)
        if reach is Reach.OWN:
            if principal.user_id == user_id:
                return (
                    organization_id is None
                    or named
                    or organization_id == self.organization_of(user_id)
                )
            if named and organization_id == self.organization_of(user_id):
                raise Problem(Kind.FORBIDDEN, "only your own may be read")
            return False
        # A service whose token names no organisation serves personal accounts, and only those.
        personal = "service" in principal.roles and not principal.organizations
        return personal if organization_id is None else named

    def _implied(self, principal: Principal, user_id: UUID) -> UUID | None:
        if len(principal.organizations) == 1 and not principal.every_organization:
            return next(iter(principal.organizations))
        stored = self.organization_of(user_id)
        if stored is None and principal.organizations and not principal.every_organization:
            raise Problem(
                Kind.INVALID_REQUEST,
                "organization_id is needed: the token names several organizations",
            )
        return stored

    def organization_of(self, user_id: UUID) -> UUID | None:
        """The organisation of the user's live subscription, at most a minute old; older only
        while Postgres does not answer. Raises `Unknown`."""
        known = self._organizations.get(user_id)
        if known is None or known[0] <= clock.monotonic():
            read = partial(self._read, user_id)
            raise Unknown(partial(self._flights.run, user_id, read))
        return known[1]

    def forget(self, user_id: UUID) -> None:
        """Reads the user's organisation anew: it has just been changed, here."""
        self._organizations.pop(user_id, None)

    async def _read(self, user_id: UUID) -> None:
        known = self._organizations.get(user_id)
        lasts = REMEMBERED_S
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await store.organization_of_user(self._pool, user_id)
        except db.UNAVAILABLE:
            if known is None:
                raise unavailable(
                    "the user's organization is not known yet; send organization_id or retry"
                ) from None
            found, lasts = known[1], OUTAGE_S
        if len(self._organizations) >= REMEMBERED_USERS:
            self._organizations.clear()
        self._organizations[user_id] = (clock.monotonic() + lasts, found)
