"""What was used is counted by Stripe's meters, whole and once, in the period it was used in."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import structlog

from ledger import metering, stripe_calls
from ledger.domain.stripe_meter import OLDEST, event_name
from tests.stripe.metered.meters import LATER, TYPES, Metered
from tests.stripe.owed.test_delivered import describe
from tests.stripe_fake.faults import Fault

ADA, EVE = UUID(int=1), UUID(int=2)


async def test_usage_of_users_and_organizations_is_at_its_meters_in_whole_units(
    metered: Metered,
) -> None:
    given = metered.fake.books.customer({"metadata": {"billing_id": str(EVE)}})["id"]
    await describe(metered, EVE, given)
    ada, eve = await metered.subscribe(ADA), await metered.subscribe(EVE, "organization")
    await metered.use(ada, "120.25", "conversation_minutes")
    await metered.use(ada, "7")
    await metered.use(eve, "11")
    await metered.settle()
    await metered.use(ada, "0.05", "conversation_minutes")
    await metered.settle()
    assert metered.at_stripe() == await metered.used()
    assert metered.at_stripe()[ADA, "billing_conversation_minutes", metered.month()] == 12030
    assert len(metered.fake.books.all("customer")) == 2
    seen = len(metered.fake.meters.events)
    await metered.settle()
    assert len(metered.fake.meters.events) == seen == 4


async def test_a_type_that_an_operator_named_leaves_under_a_name_that_says_nothing(
    metered: Metered,
) -> None:
    await metered.sql.execute("INSERT INTO usage_types VALUES ('maria_rounds', 3, 0.001)")
    ada = await metered.subscribe(ADA)
    for _ in range(3):
        await metered.use(ada, "0.335", "maria_rounds")
    with structlog.testing.capture_logs() as said:
        metering = metered.metering()
        assert await metering.run_once() == 0
        metered.fake.meters.make(event_name("maria_rounds"), formula="count")
        assert await metering.run_once() == 0
    missing = [one for one in said if one["event"] == "stripe_meter_missing"]
    assert {one["usage_type"] for one in missing} >= {"maria_rounds"}
    assert len({one["usage_type"] for one in missing}) == len(missing), "each is told once"
    assert (await metered.stand(ada))["untaken"] == 1
    metered.fake.meters.all.pop()
    metered.fake.meters.make(event_name("maria_rounds"))
    await metered.settle()
    assert list(metered.at_stripe().values()) == [1005]
    assert not [one for one in metered.fake.seen if "maria" in one.text]


async def test_a_part_of_a_unit_is_carried_until_it_is_whole(metered: Metered) -> None:
    ada = await metered.subscribe(ADA)
    for _ in range(3):
        await metered.use(ada, "0.335", "conversation_minutes")  # finer than the type allows
        await metered.settle()
    values = [int(one["payload"]["value"]) for one in metered.fake.meters.events]
    assert values == [33, 34, 33]


async def test_a_correction_is_made_good_by_later_usage_or_sent_when_the_period_ends(
    metered: Metered,
) -> None:
    ada = await metered.subscribe(ADA)
    await metered.use(ada, "100")
    await metered.settle()
    await metered.use(ada, "-30")
    await metered.settle()
    assert list(metered.at_stripe().values()) == [100]
    assert (await metered.stand(ada))["untaken"] == -30
    await metered.use(ada, "40")
    await metered.settle()
    assert list(metered.at_stripe().values()) == [110]
    await metered.use(ada, "-20")
    await metered.settle()
    metered.to_next_month()
    await metered.settle()
    assert metered.at_stripe() == await metered.used()
    assert [int(one["payload"]["value"]) for one in metered.fake.meters.events] == [100, 10, -20]


async def test_what_stripe_does_not_take_back_waits_for_a_person_who_sees_how_much(
    metered: Metered,
) -> None:
    metered.fake.meters.takes_less = False
    ada = await metered.subscribe(ADA)
    await metered.use(ada, "100")
    await metered.settle()
    metered.to_next_month()
    await metered.use(ada, "-30", months_ago=1)
    await metered.use(ada, "5")
    await metered.settle()
    assert await metered.stand(ada, 1) == {"used": 70, "delivered": 100, "parked": -30}
    assert await metered.stand(ada) == {"used": 5, "delivered": 5}
    [parked] = await metered.parked()
    assert (parked.operation, parked.last_error) == (
        "meter_event", "refused: meter_event_invalid_value",
    )  # fmt: skip
    await stripe_calls.skip(metered.sql, parked.call_id, "x", actor="t", now=metered.clock.now())
    assert await metered.stand(ada, 1) == {"used": 70, "delivered": 100, "skipped": -30}


async def test_an_event_lies_in_its_period_whenever_its_usage_is_known(metered: Metered) -> None:
    ada = await metered.subscribe(ADA)
    metered.to_next_month()
    for quantity in ("3", "4"):  # the last seconds of a month, and what is late for it
        await metered.use(ada, quantity, months_ago=1)
        await metered.use(ada, "50" + quantity)
        await metered.settle()
    assert metered.at_stripe() == await metered.used()
    late = [one for one in metered.fake.meters.events if len(one["payload"]["value"]) == 1]
    minutes = [datetime.fromtimestamp(one["timestamp"], UTC).strftime("%H:%M:%S") for one in late]
    assert minutes == ["23:59:00", "23:58:00"]


async def test_usage_of_a_period_that_has_not_begun_by_stripes_time_waits(metered: Metered) -> None:
    ada = await metered.subscribe(ADA)
    await metered.use(ada, "3")
    await metered.sql.execute("UPDATE billable_usage SET billing_period = billing_period + 40")
    await metered.sql.execute("UPDATE subscription_history SET anchor = anchor + 9")
    await metered.settle()
    assert metered.fake.meters.events == [] and await metered.outstanding() == 0


async def test_what_is_too_old_for_stripe_is_parked_and_holds_up_nothing(metered: Metered) -> None:
    ada = await metered.subscribe(ADA)
    await metered.use(ada, "9", months_ago=3)
    with structlog.testing.capture_logs() as said:
        await metered.settle()
    assert [one["reason"] for one in said if one["log_level"] == "error"] == ["too_old"]
    assert await metered.stand(ada, 3) == {"used": 9, "parked": 9}
    await metered.use(ada, "5")
    await metered.use(ada, "2", months_ago=3)
    await metered.settle()
    assert list(metered.at_stripe().values()) == [5]
    assert not [one for one in metered.fake.seen if "value%5D=9" in one.text]
    assert (await metered.events())["stripe_call_parked"] == 2


async def test_what_waited_until_it_was_too_old_is_not_sent(metered: Metered) -> None:
    ada = await metered.subscribe(ADA)
    await metered.use(ada, "9")
    await metered.metering().run_once()
    metered.clock.advance(OLDEST + timedelta(minutes=2))
    await metered.deliver()
    assert [one.last_error for one in await metered.parked()] == ["too_old"]
    assert metered.fake.meters.events == []


async def test_events_of_one_payer_go_one_by_one_and_of_two_ledgers_one_takes(
    metered: Metered,
) -> None:
    ada = await metered.subscribe(ADA)
    workers = [metered.worker(one) for one in (metered.sql, *metered.connections)]
    for _ in range(4):
        for usage_type in ("api_calls", "conversation_minutes"):
            await metered.use(ada, "1", usage_type)
        await metered.use(ada, "1", months_ago=1)
        metered.clock.advance(LATER)
        takers = [metered.metering(one) for one in metered.connections]
        assert sum(await asyncio.gather(*(one.run_once() for one in takers))) == 3
        await metered.deliver(workers)
    assert metered.at_stripe() == await metered.used()


async def test_while_stripe_is_away_usage_gathers_in_one_event(metered: Metered) -> None:
    ada = await metered.subscribe(ADA)
    metered.fake.choose = lambda: (
        Fault.AWAY if "meter_events" in metered.fake.seen[-1].path else None
    )
    for _ in range(5):
        await metered.use(ada, "1")
        metered.clock.advance(LATER)
        await metered.metering().run_once()
        while await metered.work.run_once():
            pass
    metered.fake.choose = lambda: None
    await metered.deliver()
    await metered.settle()
    assert [int(one["payload"]["value"]) for one in metered.fake.meters.events] == [1, 4]


@pytest.mark.parametrize(
    ("fault", "speechless"),
    [(Fault.FAIL_AFTER, False), (Fault.FAIL_AFTER, True), (Fault.FAIL_BEFORE, False)],
)
async def test_a_lost_answer_is_asked_for_under_the_same_identifier(
    metered: Metered, fault: Fault, speechless: bool
) -> None:
    metered.fake.meters.speechless = speechless
    ada = await metered.subscribe(ADA)
    await metered.use(ada, "9")
    await metered.metering().run_once()
    await metered.work.run_once()  # the customer
    metered.fake.faults = [fault]
    await metered.deliver()
    assert list(metered.at_stripe().values()) == [9] and await metered.parked() == []
    sent = [one for one in metered.fake.seen if one.path.endswith("meter_events")]
    assert len({one.params["identifier"] for one in sent}) == 1 < len(sent)
    assert not [one for one in metered.fake.seen if one.path.endswith("summaries")]


@pytest.mark.parametrize("fault", [Fault.LOSE_ANSWER, Fault.LOSE_REQUEST])
async def test_after_a_day_stripe_is_asked_what_it_has_counted(
    metered: Metered, fault: Fault
) -> None:
    ada = await metered.subscribe(ADA)
    await metered.use(ada, "9")
    await metered.metering().run_once()
    await metered.work.run_once()  # the customer
    metered.fake.faults = [fault]
    await metered.work.run_once()
    metered.clock.advance(timedelta(hours=25))
    await metered.deliver()
    assert list(metered.at_stripe().values()) == [9] and len(metered.fake.meters.events) == 1
    assert [one for one in metered.fake.seen if one.path.endswith("summaries")]


async def test_an_event_is_looked_up_a_day_after_it_was_first_sent_under_whatever_keys(
    metered: Metered,
) -> None:
    ada = await metered.subscribe(ADA)
    await metered.use(ada, "9")
    await metered.metering().run_once()
    await metered.work.run_once()  # the customer
    for fault in (Fault.FAIL_AFTER, None):  # the second has the first's answer
        metered.fake.faults = [fault]
        await metered.work.run_once()
        metered.clock.advance(timedelta(hours=12, minutes=30))
    await metered.deliver()
    assert len(metered.fake.meters.events) == 1 and await metered.parked() == []


async def test_what_somebody_else_counted_in_its_minute_waits_for_a_person(
    metered: Metered,
) -> None:
    ada = await metered.subscribe(ADA)
    await metered.use(ada, "9")
    await metered.metering().run_once()
    await metered.work.run_once()  # the customer
    metered.fake.faults = [Fault.LOSE_ANSWER]
    await metered.work.run_once()
    metered.fake.meters.events[0]["payload"]["value"] = "8"
    metered.clock.advance(timedelta(hours=25))
    await metered.deliver()
    assert [one.last_error for one in await metered.parked()] == ["ambiguous"]
    metered.fake.meters.events[0]["payload"]["value"] = "9"
    [parked] = await metered.parked()
    await stripe_calls.retry(metered.sql, parked.call_id, actor="t", now=metered.clock.now())
    await metered.deliver()
    assert await metered.stand(ada) == {"used": 9, "delivered": 9}


@pytest.mark.parametrize("batch", [1, 3])
async def test_all_subscriptions_are_looked_at_a_few_at_a_time(
    metered: Metered, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(metering, "SLICE", 2)
    monkeypatch.setattr(metering, "BATCH", batch)
    for number in range(5):
        one = await metered.subscribe(UUID(int=number + 1))
        for usage_type in TYPES:
            await metered.use(one, "7", usage_type)
    assert await metered.metering().run_once() == 10
    assert await metered.metering().run_once() == 0
