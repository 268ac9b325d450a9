"""Takes a user out of what need not be kept, and names the user otherwise in what is exported.

Usage records, invoices and audit events are kept by law and sealed: the id in them stays. It says
nothing about a person by itself; who it is, the auth service knows.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from ledger import store
from ledger.db import Connection


class LiveSubscription(Exception):
    """The user has a subscription that goes on."""


class Pseudonym(msgspec.Struct, frozen=True):
    """`memberships`: of how many organisations it is not known any more that the user is in."""

    pseudonym: UUID
    memberships: int


async def pseudonymise(db: Connection, user_id: UUID, *, actor: str, now: datetime) -> Pseudonym:
    """In one transaction; the same again keeps the pseudonym. Quotas of the user that are in Redis
    are to be made anew after it: a load notes where they are. Raises `LiveSubscription`."""
    async with db.transaction():
        if await store.pseudonyms.has_live_subscription(db, user_id):
            raise LiveSubscription
        pseudonym, is_new = await store.pseudonyms.make(db, user_id, now)
        memberships = await store.pseudonyms.forget_memberships(db, user_id)
        if is_new or memberships:
            # Without the user's id: the trail must not be the way back.
            details = {"pseudonym": str(pseudonym), "memberships": memberships}
            await store.insert_audit_event(db, "user_pseudonymised", actor, details, now)
    return Pseudonym(pseudonym, memberships)
