"""Which account a request is about: the user alone, or the user within an organisation."""

from __future__ import annotations

from uuid import UUID

from msgspec import UNSET, UnsetType

from gateway.auth import Action, Principal, Reach
from gateway.problems import Kind, Problem, unavailable
from ledger import clock, db, store
from ledger.domain.ids import dev_uuid
from lua.keys import Account

REMEMBERED_S = 60  # how long a user's organisation may be remembered
REMEMBERED_USERS = 200_000


class Accounts:
    """Resolves accounts; remembers to which organisation a user's subscription belongs."""

    def __init__(self, pool: db.Pool, *, readable_names: bool) -> None:
        self._pool = pool
        self._readable_names = readable_names
        self._organizations: dict[UUID, tuple[float, UUID | None]] = {}

    def identify(self, text: str, what: str, kind: Kind = Kind.INVALID_REQUEST) -> UUID:
        """The UUID a caller means. In dev a readable name stands for a stable one."""
        try:
            return dev_uuid(text) if self._readable_names else UUID(text)
        except ValueError:
            raise Problem(kind, f"{what} must be a UUID") from None

    def optional(self, text: str | UnsetType | None, kind: Kind) -> UUID | None:
        if text is None or text is UNSET:
            return None
        return self.identify(str(text), "organization_id", kind)

    async def to_record(
        self, principal: Principal, user_id: UUID, organization_id: UUID | None
    ) -> Account:
        """The account to charge. Raises 400 when the token names several organisations and
        nothing says which, 403 for one that it does not name."""
        principal.reach(Action.RECORD_USAGE)
        if organization_id is None:
            organization_id = await self._implied(principal, user_id)
        if organization_id is not None and not principal.acts_for(organization_id):
            raise Problem(Kind.FORBIDDEN, "the token does not name this organization")
        return Account(user_id, organization_id)

    async def to_read(
        self, principal: Principal, action: Action, user_id: UUID, organization_id: UUID | None
    ) -> Account:
        """The account to show. Raises 404 for a foreign organisation's, 403 for another user of
        one's own."""
        reach = principal.reach(action)
        if organization_id is None:
            organization_id = await self._implied(principal, user_id)
        if not await self._may_read(principal, reach, user_id, organization_id):
            raise Problem(Kind.NOT_FOUND, "there is no such user")
        return Account(user_id, organization_id)

    async def _may_read(
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
                    or organization_id == await self.organization_of(user_id)
                )
            if named and organization_id == await self.organization_of(user_id):
                raise Problem(Kind.FORBIDDEN, "only your own may be read")
            return False
        # A service whose token names no organisation serves personal accounts, and only those.
        personal = "service" in principal.roles and not principal.organizations
        return personal if organization_id is None else named

    async def _implied(self, principal: Principal, user_id: UUID) -> UUID | None:
        if len(principal.organizations) == 1 and not principal.every_organization:
            return next(iter(principal.organizations))
        stored = await self.organization_of(user_id)
        if stored is None and principal.organizations and not principal.every_organization:
            raise Problem(
                Kind.INVALID_REQUEST,
                "organization_id is needed: the token names several organizations",
            )
        return stored

    async def organization_of(self, user_id: UUID) -> UUID | None:
        """The organisation of the user's live subscription, at most a minute old; older only
        while Postgres does not answer."""
        now = clock.monotonic()
        known = self._organizations.get(user_id)
        if known is not None and known[0] > now:
            return known[1]
        try:
            found = await store.organization_of_user(self._pool, user_id)
        except db.UNAVAILABLE:
            if known is not None:
                return known[1]
            raise unavailable(
                "the user's organization is not known yet; send organization_id or retry"
            ) from None
        if len(self._organizations) >= REMEMBERED_USERS:
            self._organizations.clear()
        self._organizations[user_id] = (now + REMEMBERED_S, found)
        return found

    def forget(self, user_id: UUID) -> None:
        """Drops what is remembered: it contradicted the ledger."""
        self._organizations.pop(user_id, None)
