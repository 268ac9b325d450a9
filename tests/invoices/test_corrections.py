"""Corrections are billed like what they correct: in its period, by its terms."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from ledger import store
from ledger.corrections import Corrected, Corrections, NotPossible, Wanted
from ledger.dead_letters import DeadLetters
from ledger.rollover import LATEST
from ledger.wishes import Wish
from lua.connection import RedisUnavailable
from tests.invoices.conftest import TYPE, Months
from tests.invoices.test_cycle import CENT_EACH
from tests.invoices.test_records import TENS, behind
from tests.ledger.letters import REFUSED, accept, refuse

TIERS = {
    "usage_type": TYPE, "model": "graduated", "included": "10",
    "tiers": [{"up_to": "100", "unit_amount": "0.10"}, {"up_to": None, "unit_amount": "0.01"}],
}  # fmt: skip
PER_DAY = CENT_EACH | {"unit_amount": "1.00", "units": {"policy": "cms_8_minute"}}


async def correct(months: Months, usage_id: UUID, units: int) -> Corrected:
    corrections = Corrections(months.service.scripts, 1000)
    original = await store.corrections.original(months.sql, usage_id)
    assert original is not None
    wanted = Wanted(units, "test", str(uuid4()), "finance")
    return await corrections.correct(months.sql, original, wanted, months.now)


async def finished(months: Months) -> None:
    """What the ledger does once corrections are drained."""
    await months.service.drained()
    await months.sql.execute("UPDATE usage_corrections SET next_attempt_at = NOW()")
    await Corrections(months.service.scripts, 1000).run_once(months.sql, months.now)
    await months.settle()


async def newest(months: Months) -> list[tuple[str, str]]:
    return await months.lines((await months.invoices())[-1])


async def test_in_the_running_period_it_is_part_of_what_was_used(months: Months) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "pro")
    original = await months.use("ada", 150)
    await months.service.drained()
    done = await correct(months, original, -50)  # in the stream before the close
    await months.end_of_period("ada")
    assert await newest(months) == [("base_fee", "49.00"), ("usage", "1.00")]
    assert await behind(months) == {original, done.correction.usage_id}


@pytest.mark.parametrize(
    ("price", "used", "by", "billed", "adjusted"),
    [
        (CENT_EACH, 150, -50, "1.50", "-0.50"),
        (CENT_EACH, 150, -150, "1.50", "-1.50"),
        (CENT_EACH, 150, 50, "1.50", "0.50"),
        (TIERS, 120, -20, "10.10", "-1.10"),  # 10 at a cent, and 10 of the tier before
        (TENS, 11, -1, "0.20", "-0.10"),
        (TENS, 11, -2, "0.20", "-0.10"),
        (TENS, 15, -1, "0.20", "0.00"),
        (PER_DAY, 23, -1, "2.00", "-1.00"),
    ],
)
async def test_an_invoiced_period_is_adjusted_by_the_next_invoice(
    months: Months, price: dict[str, Any], used: int, by: int, billed: str, adjusted: str
) -> None:
    await months.plan("pro", "49.00", price)
    await months.create("ada", "pro")
    original = await months.use("ada", used)
    await months.end_of_period("ada")
    assert ("usage", billed) in await newest(months)
    await months.use("ada", 1)
    done = await correct(months, original, by)
    assert await months.service.drained()
    row = await months.sql.fetchrow(
        "SELECT * FROM usage_records WHERE usage_id = $1", done.correction.usage_id
    )
    assert row is not None and row["used_after"] is None  # the quota's period is over
    await months.end_of_period("ada")
    assert ("adjustment", adjusted) in await newest(months)
    assert await behind(months, "adjustment") == {done.correction.usage_id}


async def test_the_running_quota_is_not_that_of_an_earlier_period(months: Months) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "pro")
    original = await months.use("ada", 10)
    await months.end_of_period("ada")
    await months.use("ada", 3)
    await correct(months, original, -4)
    _, said, _ = await months.service.get("/quota/ada")
    assert [one["used"] for one in said["quotas"] if one["usage_type"] == TYPE] == [3]
    await months.service.drained()
    totals = await months.sql.fetch(
        "SELECT quantity::INTEGER AS quantity FROM usage_totals ORDER BY quota_period"
    )
    assert [one["quantity"] for one in totals] == [6, 3]


async def test_records_that_cancel_each_other_out_are_on_a_line(months: Months) -> None:
    await months.plan("pro", "49.00", TENS)
    await months.create("ada", "pro")
    original, other = await months.use("ada", 15), await months.use("ada", 11)
    await months.end_of_period("ada")
    taken = await correct(months, original, -5)  # 20 of it were billed, now 10
    given = await correct(months, other, 5)  # and of this 20 as before
    await months.end_of_period("ada")
    assert ("adjustment", "-0.10") in await newest(months)
    ids = {taken.correction.usage_id, given.correction.usage_id}
    assert await behind(months, "adjustment") == ids


async def test_a_year_later_it_is_counted_by_the_record_it_corrects(months: Months) -> None:
    await months.plan("pro", "49.00", TENS)
    await months.create("ada", "pro")
    original = await months.use("ada", 15)
    for _ in range(3):
        await months.end_of_period("ada")
    await correct(months, original, -6)
    await months.end_of_period("ada")
    assert ("adjustment", "-0.10") in await newest(months)


async def test_it_is_billed_under_the_terms_of_what_it_corrects(months: Months) -> None:
    """Whatever plan, day of the month and time zone the subscription has since."""
    await months.plan("pro", "49.00", CENT_EACH)
    await months.plan("max", "99.00", CENT_EACH | {"unit_amount": "5.00"})
    await months.create("ada", "pro")
    original = await months.use("ada", 10)
    await months.service.drained()
    await months.act("ada", Wish("cancel", when="now"))
    await months.advance(months.now + timedelta(days=3))
    await months.act("ada", Wish("reactivate"))
    await months.act("ada", Wish("change", "max", "now"))
    await correct(months, original, -4)
    await months.service.drained()
    rows = await months.sql.fetch(
        "SELECT DISTINCT subscription_id, plan_tier, billing_period, occurred_at FROM usage_records"
    )
    assert len(rows) == 1


@pytest.mark.parametrize("letter", [False, True])
async def test_after_the_last_invoice_of_an_ended_subscription_there_is_another(
    months: Months, letter: bool
) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "pro")
    original = await months.use("ada", 100)
    if letter:
        await refuse(months.sql)
        await months.use("ada", REFUSED)
    await months.act("ada", Wish("cancel", when="now"))
    await months.advance(months.now + LATEST + timedelta(days=1))
    count = len(await months.invoices())
    assert not await months.sql.fetchval(
        "SELECT COUNT(*) FROM billing_periods WHERE invoiced_at IS NULL"
    )
    if letter:
        await accept(months.sql)
        parked = await months.sql.fetchval("SELECT dead_letter_id FROM dead_letters")
        letters = DeadLetters(months.sql, months.service.scripts, actor="olga", at=months.now)
        await letters.retry(parked)
    else:
        await correct(months, original, 13)
    await finished(months)
    assert len(await months.invoices()) == count + 1
    assert await newest(months) == [("adjustment", "0.13")]
    await finished(months)
    assert len(await months.invoices()) == count + 1
    await months.sql.execute("DELETE FROM dead_letters")


async def test_a_last_invoice_that_is_still_to_come_takes_it(months: Months) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "pro")
    original = await months.use("ada", 100)
    await months.act("ada", Wish("cancel", when="now"))
    await months.advance(months.now + timedelta(days=2))
    await correct(months, original, -13)
    await finished(months)
    assert await store.billing_periods.is_awaited(
        months.sql, (await months.invoices())[0].subscription_id
    )
    await months.advance(months.now + LATEST)
    assert ("adjustment", "-0.13") in await newest(months)


class Away:
    """A Redis that is not there."""

    async def correct(self, *_: Any, **__: Any) -> None:
        raise RedisUnavailable("away", outcome_unknown=False)


async def test_one_that_was_withdrawn_while_it_was_asked_for_again_is_asked_for_anew(
    months: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage_id = await months.use("ada", 150)
    await months.service.drained()
    first, second = Corrections(Away(), 1000), Corrections(months.service.scripts, 1000)  # type: ignore[arg-type]
    original = await store.corrections.original(months.sql, usage_id)
    assert original is not None
    wanted = Wanted(-150, "test", "key", "finance")
    with pytest.raises(RedisUnavailable):
        await first.correct(months.sql, original, wanted, months.now)
    claim = store.corrections.claim

    async def late(db: Any, one: UUID, for_s: int) -> bool:
        await store.corrections.withdraw(db, one)  # Redis refused the first just now
        return await claim(db, one, for_s)

    monkeypatch.setattr(store.corrections, "claim", late)
    done = await second.correct(months.sql, original, wanted, months.now)
    kept = await store.corrections.find(months.sql, done.correction.usage_id)
    assert kept is not None
    # What is left is known before it is drained: nothing can be taken back twice.
    with pytest.raises(NotPossible):
        more = Wanted(-1, "test", "other", "finance")
        await second.correct(months.sql, original, more, months.now)


async def test_what_was_written_off_is_neither_given_back_nor_charged_by_a_correction(
    months: Months,
) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "pro")
    usage_id = await months.use("ada", 150)
    await months.end_of_period("ada")
    voided = (await months.invoices())[-1]
    path = f"/invoices/{voided.invoice_id}/void"
    said = await months.service.post(path, {"reason": "x"}, headers=months.service.token("finance"))
    assert said[0] == 200
    for units, adjusted in ((-50, "0.00"), (50, "0.00"), (70, "0.70"), (-220, "-0.70")):
        await correct(months, usage_id, units)
        await finished(months)
        await months.end_of_period("ada")
        lines = await months.lines((await months.invoices())[-1])
        assert ("adjustment", adjusted) in lines


async def test_one_that_cannot_be_finished_does_not_hold_up_the_others(
    months: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    for user in ("ada", "grace"):
        await months.create(user, "pro")
        usage_id = await months.use(user, 150)
        await months.service.drained()
        await correct(months, usage_id, -50)
    original, calls = store.corrections.done, 0

    async def failing(db: Any, usage_id: UUID) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("which may quote a row")
        await original(db, usage_id)

    monkeypatch.setattr(store.corrections, "done", failing)
    await finished(months)
    open_ = "SELECT COUNT(*) FROM usage_corrections WHERE done_at IS NULL"
    assert await months.sql.fetchval(open_) == 1
    due = f"{open_} AND next_attempt_at <= NOW()"
    assert await months.sql.fetchval(due) == 0
    await finished(months)
    assert await months.sql.fetchval(open_) == 0
