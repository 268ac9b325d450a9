"""Who pays, from the very moment that an organisation's terms end, whether or not anybody has noted
it: a user with a subscription of its own goes on in a period of its own."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from ledger.wishes import Wish
from tests.invoices.conftest import TYPE, Months

CENT_EACH = {"usage_type": TYPE, "model": "per_unit", "unit_amount": "0.01"}


class Member:
    """ada, who is on a plan of her own for a year, and uses it for an organisation that pays."""

    def __init__(self, months: Months, own: UUID, team: UUID, end: datetime) -> None:
        self.months = months
        self.own, self.team = own, team
        self.end = end  # of the organisation's period

    async def use(self, quantity: int) -> None:
        await self.months.use("ada", quantity, organization_id="acme")

    async def quota(self) -> dict[str, Any]:
        months = self.months
        token = months.service.token("finance")
        path = "/quota/ada?organization_id=acme"
        _, said, _ = await months.service.get(path, headers=token)
        [calls] = [
            one for one in said["quotas"] if (one["scope"], one["usage_type"]) == ("user", TYPE)
        ]
        return {**calls, **said["period"]}

    async def booked(self) -> list[tuple[UUID, str, int]]:
        """What each record was booked to, in order."""
        await self.months.service.drained()
        rows = await self.months.sql.fetch(
            "SELECT subscription_id, plan_tier, quantity FROM usage_records ORDER BY position"
        )
        return [(row[0], row[1], int(row[2])) for row in rows]


@pytest.fixture
async def ada(months: Months) -> Member:
    await months.plan("own", "490.00", CENT_EACH, interval="year")
    await months.plan("team", "49.00", CENT_EACH)
    await months.plan("large", "4.00", CENT_EACH)
    own = await months.create("ada", "own")
    team = await months.create("boss", "team", organization="acme")
    end = team.subscription.period_end
    assert end is not None
    return Member(months, own.subscription.subscription_id, team.subscription.subscription_id, end)


async def test_an_organization_that_has_ended_pays_no_more(months: Months, ada: Member) -> None:
    await months.act("boss", Wish("cancel"), "acme")
    await months.move(ada.end - timedelta(minutes=1))
    await ada.use(3)
    await months.move(ada.end)
    await ada.use(5)
    assert await ada.booked() == [(ada.team, "team", 3), (ada.own, "own", 5)]
    await months.settle()
    await ada.use(7)
    assert (await ada.booked())[2] == (ada.own, "own", 7)


async def test_a_plan_that_follows_is_in_force_at_once(months: Months, ada: Member) -> None:
    await months.act("boss", Wish("change", "large", "period_end"), "acme")
    await months.move(ada.end - timedelta(minutes=1))
    await ada.use(3)
    await months.move(ada.end)
    await ada.use(5)
    assert await ada.booked() == [(ada.team, "team", 3), (ada.team, "large", 5)]


async def test_the_users_own_period_goes_on_with_what_is_counted(
    months: Months, ada: Member
) -> None:
    await months.act("boss", Wish("cancel"), "acme")
    await ada.use(3)
    before = await ada.quota()
    await months.move(ada.end)
    await ada.use(5)
    after = await ada.quota()
    assert datetime.fromisoformat(before["resets_at"]) > ada.end
    assert (before["used"], after["used"]) == (3, 8)
    for name in ("start", "end", "resets_at"):
        assert before[name] == after[name]
