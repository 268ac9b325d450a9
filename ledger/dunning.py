"""What its unpaid invoices make of a subscription: past due, blocked, expired; active again."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from ledger import store
from ledger.db import Executor
from ledger.domain.dunning import Step, blocks, due_action
from ledger.domain.subscription import NotAllowed
from ledger.store.subscriptions import Subscription
from ledger.subscriptions import Address, carry_out
from ledger.supersede import NewTerms, owe
from ledger.wishes import Wish


async def settle(
    db: Executor,
    stored: Subscription,
    before: Collection[Step],
    after: Collection[Step],
    now: datetime,
    grace: timedelta,
    *,
    gave_up: bool,
) -> list[int]:
    """The subscription after the steps of what it owes went from `before` to `after`; what is then
    owed to Redis. Within the caller's transaction, which holds its row."""
    verb = due_action(stored.life.status, after, gave_up=gave_up)
    if verb is not None:
        address = Address(stored.scope, stored.user_id, stored.organization_id)
        try:
            return (await carry_out(db, address, Wish(verb), "ledger", now, grace))[1]
        except NotAllowed:
            return []  # its period ended just now, and it with that
    if stored.life.status == "past_due" and blocks(before) != blocks(after):
        return [await _access(db, stored, now, blocked=blocks(after))]
    return []


async def _access(db: Executor, stored: Subscription, now: datetime, *, blocked: bool) -> int:
    """The same terms, with or without access: quotas are loaded anew."""
    version = await store.subscriptions.renew(db, stored.subscription_id)
    done = "block" if blocked else "unblock"
    await store.subscriptions.note(db, stored.subscription_id, done, "ledger", now, now)
    await store.insert_audit_event(
        db,
        f"subscription_{done}ed",
        "ledger",
        {"subscription_id": str(stored.subscription_id), "scope": stored.scope},
        now,
        user_id=stored.user_id,
        organization_id=stored.organization_id,
    )
    change = NewTerms(
        stored.subscription_id, stored.scope, stored.user_id, stored.organization_id, version
    )
    return await owe(db, change)
