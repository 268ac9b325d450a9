"""What is left over of a period is granted for the next one.

1. a period of a plan with rollover is closed (`ledger.rollover`)
2. the drain passes the close: what was used in it is final
3. the quotas are loaded anew, by a new version of the terms (`ledger.rollover.reload_quotas`)
4. a load finds that nothing was granted yet, and grants it (`grant`); it never changes afterwards

By the load, because nobody else knows all quotas there are: a member of an organisation who used
nothing has no row. A load between 1 and 2 goes without; 3 has it done again.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from ledger import store
from ledger.db import Connection, Executor
from ledger.domain.entitlement import left_over
from ledger.domain.plan import Scope


async def grant(
    db: Connection,
    subscription_id: UUID,
    subject: str,
    scope: Scope,
    quota_period: datetime,
    now: datetime,
) -> None:
    """Grants a subject what is left over for its period that begins at `quota_period`; `subject`
    as `usage_totals` names it. Safe to repeat, and to do twice at once."""
    async with db.transaction():
        await _granted(db, subscription_id, subject, scope, quota_period, now)


async def _granted(
    db: Executor,
    subscription_id: UUID,
    subject: str,
    scope: Scope,
    quota_period: datetime,
    now: datetime,
) -> dict[str, int]:
    """Units by usage type that the period has beyond its limit, as far as they were left over."""
    found = await store.grants.leftovers(db, subscription_id, subject, quota_period, scope)
    due = [one for one in found if one.granted is None]
    granted = {one.usage_type: one.granted for one in found if one.granted is not None}
    if not due:
        return granted
    before = due[0].before
    used = await store.totals(db, subject, before)
    earlier: dict[str, int] = {}
    if any(used.get(one.usage_type) for one in due):
        # It may have been used without being loaded since its own close, and lack its grants yet.
        earlier = await _granted(db, subscription_id, subject, scope, before, now)
    units = {
        one.usage_type: left_over(
            one.limit, one.most, used.get(one.usage_type, 0), earlier.get(one.usage_type, 0)
        )
        for one in due
    }
    new = await store.grants.insert(db, subscription_id, subject, quota_period, units, now)
    for usage_type, quantity in new.items():
        if quantity:
            details = {
                "origin": "rollover",
                "subscription_id": str(subscription_id),
                "subject": subject,
                "usage_type": usage_type,
                "quota_period": quota_period.isoformat(),
                "quantity": f"{quantity.normalize():f}",
            }
            await store.insert_audit_event(db, "quota_granted", "ledger", details, now)
    return granted | units
