"""The caller, as everything behind authentication sees it."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import msgspec

from gateway.auth import rights
from gateway.auth.rights import SCOPES, Action, Reach
from gateway.problems import Kind, Problem


class Principal(msgspec.Struct, frozen=True):
    """The caller: `organizations` are those of the token, `every_organization` its ``*``."""

    subject: str
    roles: frozenset[str]
    organizations: frozenset[UUID] = frozenset()
    every_organization: bool = False
    scopes: frozenset[str] = frozenset()
    anonymous: bool = False  # no token, in dev

    @property
    def user_id(self) -> UUID | None:
        """The user this principal is, when it is one."""
        try:
            return UUID(self.subject)
        except ValueError:
            return None

    def reach(self, action: Action) -> Reach:
        """How far this principal may go. Raises the problem when it may not at all."""
        best = rights.reach(self.roles, self.scopes, self.every_organization, action)
        if best is Reach.NONE:
            if self.anonymous:
                raise unauthorized("this needs a token: ./run token --role ...")
            raise Problem(Kind.FORBIDDEN, "your role does not allow this")
        return best

    def acts_for(self, organization_id: UUID) -> bool:
        return self.every_organization or organization_id in self.organizations


Denied = Callable[[Principal | None, str, int], None]
"""Told of who was denied a route, by its name, and with which status; None: nobody we know."""

DEV_SERVICE = Principal(
    subject="service-dev",
    roles=frozenset({"service"}),
    every_organization=True,
    scopes=frozenset(SCOPES.values()),
    anonymous=True,
)
"""Who calls without a token in the dev environment, where the spec's curl examples must work."""


def unauthorized(detail: str) -> Problem:
    return Problem(Kind.UNAUTHORIZED, detail, {"WWW-Authenticate": "Bearer"})
