"""Loading a quota: exact over any tail, and never from a snapshot that was overtaken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from typing import Any, cast

import pytest

from ledger import db
from ledger.domain.ids import dev_uuid
from ledger.entitlements import Loader, NotLoaded
from ledger.snapshot import NoDefaultTier, OrganizationMismatch
from lua import keys
from lua.keys import Account, partition_of
from lua.scripts import Scripts
from lua.types import LoadOutcome, Missing
from tests.conftest import Service
from tests.entries import quota_in_words
from tests.ledger.plans import add_plan, allows, on_plan, organization_on_plan, pool, subscribe

Hook = Callable[[], Awaitable[None]]

MID_MONTH = date(2026, 1, 17)  # pools of these tests begin on the 1st


class Interrupted:
    """Scripts that let something happen between the snapshot and its load."""

    def __init__(self, inner: Scripts, *hooks: Hook) -> None:
        self._inner, self._hooks = inner, list(hooks)
        self.outcomes: list[LoadOutcome] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def load(self, *args: Any, **options: Any) -> LoadOutcome:
        if self._hooks:
            await self._hooks.pop(0)()
        self.outcomes.append(await self._inner.load(*args, **options))
        return self.outcomes[-1]


class Loading:
    """One account of a service, loaded by hand."""

    def __init__(self, service: Service, pool: db.Pool, user: str, clinic: str = "") -> None:
        self.service, self.pool = service, pool
        organization = dev_uuid(clinic) if clinic else None
        self.who = Account(dev_uuid(user), organization).who
        self.partition = partition_of(self.who, service.settings.partitions)

    async def load(self, *hooks: Hook) -> list[LoadOutcome]:
        scripts = Interrupted(self.service.scripts, *hooks)
        loader = Loader(
            self.pool, cast(Scripts, scripts), "basic", self.service.settings.partitions
        )
        seconds, _ = await self.service.redis.run("TIME")
        both = Missing.USER | (Missing.POOL if self.who[:1] == b"o" else Missing.NONE)
        since = asyncio.get_running_loop().time()
        await loader.load(self.partition, self.who, both, int(seconds) * 1000, since)
        return scripts.outcomes

    async def forget(self) -> None:
        for subject in {self.who, self.who[:17]}:
            await self.service.redis.run("DEL", keys.quota(self.partition, subject))

    async def field(self, name: str, subject: bytes = b"") -> str | None:
        key = keys.quota(self.partition, subject or self.who)
        stored = await self.service.redis.run("HGETALL", key)
        found = quota_in_words({field.decode(): raw for field, raw in stored.items()}).get(name)
        return None if found is None else found.decode()


def usage(user: str, quantity: int = 1, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "usage_type": "api_calls", "quantity": quantity, **more}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may shed a part of a large batch, which is not what is tested here."""
    monkeypatch.setattr("gateway.lane.WAIT_S", 10.0)


@pytest.fixture
async def ada(service: Service, postgres_pool: db.Pool) -> Loading:
    await service.drained()
    return Loading(service, postgres_pool, "ada")


@pytest.mark.parametrize(
    ("entries", "page", "drained_before"),
    [(900, 5000, True), (1100, 5000, False), (2300, 500, True), (3300, 500, False)],
)
async def test_a_load_over_an_undrained_tail_of_any_length_is_exact(
    service: Service,
    postgres_pool: db.Pool,
    monkeypatch: pytest.MonkeyPatch,
    entries: int,
    page: int,
    drained_before: bool,
) -> None:
    monkeypatch.setattr("ledger.entitlements.TAIL_PAGE", page)
    await organization_on_plan(
        service.sql, "clinic", allows("api_calls", None), pool("api_calls", None)
    )
    expected = {"ada": 0, "bob": 0}
    sent = 0
    while sent < entries:
        count = min(1000, entries - sent)
        records = []
        for n in range(count):
            user, quantity = ("ada", "bob")[n % 3 == 0], 1 + n % 7
            records.append(usage(user, quantity, organization_id="clinic"))
            expected[user] += quantity
        _, said, _ = await service.post("/usage/batch", {"records": records})
        assert said["accepted"] == count
        sent += count
        if (drained_before and sent == 1000) or (drained_before and entries < 1000):
            await service.drained()
    account = Loading(service, postgres_pool, "ada", "clinic")
    await account.forget()
    await account.load()
    assert await account.field("used:api_calls") == str(expected["ada"])
    assert await account.field("used:api_calls", account.who[:17]) == str(sum(expected.values()))


async def test_a_long_tail_is_added_up_without_what_counts_nowhere(
    ada: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.entitlements.TAIL_PAGE", 500)
    stream = keys.stream(ada.partition)
    for fields in (("recovery", "2"), ("event", "short")):
        _, said, _ = await ada.service.post("/usage/batch", {"records": [usage("ada")] * 600})
        assert said["accepted"] == 600
        await ada.service.redis.run("XADD", stream, "*", *fields)
    await ada.forget()
    assert await ada.load() == [LoadOutcome.RETRY, LoadOutcome.LOADED]
    assert await ada.field("used:api_calls") == "1200"


async def test_a_long_tail_counts_for_user_and_pool_by_the_period_of_each(
    service: Service, postgres_pool: db.Pool
) -> None:
    await organization_on_plan(service.sql, "clinic", pool("api_calls", None))
    await on_plan(
        service.sql, "ada", allows("api_calls", None), organization="clinic", anchor=MID_MONTH
    )
    for _ in range(2):
        records = [usage("ada", organization_id="clinic")] * 600
        assert (await service.post("/usage/batch", {"records": records}))[1]["accepted"] == 600
    account = Loading(service, postgres_pool, "ada", "clinic")
    await account.forget()
    assert LoadOutcome.RETRY in await account.load()
    starts = {await account.field("starts", subject) for subject in (account.who, account.who[:17])}
    assert len(starts) == 2
    for subject in (account.who, account.who[:17]):
        assert await account.field("used:api_calls", subject) == "1200"


async def test_a_long_tail_with_entries_of_another_build_is_not_added_up(ada: Loading) -> None:
    await ada.service.post("/usage/batch", {"records": [usage("ada")] * 1000})
    await ada.service.redis.run("XADD", keys.stream(ada.partition), "*", "id", "x", "quota", "x")
    await ada.forget()
    with pytest.raises(NotLoaded, match="another build"):
        await ada.load()


async def test_a_cursor_that_moved_between_snapshot_and_load_counts_nothing_twice(
    ada: Loading,
) -> None:
    service = ada.service

    async def drain() -> None:
        await service.drained()

    for n in range(3):
        await service.post("/usage", usage("ada", 2))
        await ada.forget()
        await ada.load(drain)
        assert await ada.field("used:api_calls") == str(2 * (n + 1))


async def test_entries_trimmed_between_snapshot_and_load_are_not_forgotten(ada: Loading) -> None:
    service = ada.service
    service.drain._retention_s = 0

    async def drain_and_trim() -> None:
        for _ in range(3):
            await service.drained()
            await service.post("/usage", usage("ada", 1))
        await service.drained()
        await ada.forget()

    await service.post("/usage", usage("ada", 5))
    await ada.forget()
    outcomes = await ada.load(drain_and_trim)
    assert outcomes == [LoadOutcome.RETRY, LoadOutcome.LOADED]
    assert await ada.field("used:api_calls") == "8"


async def test_a_plan_that_changed_between_snapshot_and_load_is_the_one_loaded(
    ada: Loading,
) -> None:
    """Once the newer terms were loaded, the older snapshot must not come back."""
    service = ada.service
    await on_plan(service.sql, "ada", allows("api_calls", "5"))

    async def change() -> None:
        await add_plan(service.sql, "of_ada", allows("api_calls", "9"))
        await service.sql.execute(
            "UPDATE subscriptions SET plan_version = 2, version = nextval('subscription_versions')"
        )
        await ada.load()

    outcomes = await ada.load(change)
    assert outcomes == [LoadOutcome.RETRY, LoadOutcome.LOADED]
    assert (await ada.field("limit:api_calls") or "").startswith("h9")


async def test_a_subscription_that_ended_between_snapshot_and_load_is_not_loaded(
    ada: Loading,
) -> None:
    service = ada.service
    await on_plan(service.sql, "ada", allows("api_calls", "5"))

    async def cancel() -> None:
        await service.sql.execute(
            "UPDATE subscriptions SET status = 'canceled',"
            " version = nextval('subscription_versions')"
        )
        await ada.load()

    await ada.load(cancel)
    assert (await ada.field("limit:api_calls") or "").startswith("h10000")


async def test_a_recovery_between_snapshot_and_load_is_noticed(ada: Loading) -> None:
    service = ada.service
    await service.post("/usage", usage("ada", 5))
    await service.drained()

    async def lose() -> None:
        await service.redis.run("FLUSHALL")
        await service.drained()

    outcomes = await ada.load(lose)
    assert outcomes == [LoadOutcome.RETRY, LoadOutcome.LOADED]
    assert await ada.field("used:api_calls") == "5"
    assert await ada.field("epoch") == "2"


async def test_usage_recorded_between_snapshot_and_load_is_counted(ada: Loading) -> None:
    service = ada.service
    await service.post("/usage", usage("ada", 5))
    await ada.forget()

    async def record() -> None:
        await service.post("/usage", usage("ada", 2))
        await ada.forget()

    await ada.load(record)
    assert await ada.field("used:api_calls") == "7"


async def test_a_loaded_quota_is_not_replaced_by_the_same_again(ada: Loading) -> None:
    await ada.service.post("/usage", usage("ada", 5))
    assert await ada.load() == [LoadOutcome.LOADED]
    assert await ada.field("used:api_calls") == "5"


async def test_a_rate_window_outlives_a_reload(ada: Loading) -> None:
    service = ada.service
    await on_plan(service.sql, "ada", allows("api_calls", None, rate=(3, 3600)))
    await service.post("/usage", usage("ada", 3))
    await service.sql.execute("UPDATE subscriptions SET version = nextval('subscription_versions')")
    await ada.load()
    assert (await service.post("/usage", usage("ada")))[0] == 429


async def test_a_dead_letter_still_counts_when_the_quota_is_loaded_again(
    service: Service, postgres_pool: db.Pool
) -> None:
    request = usage("ada", 3, idempotency_key="k", organization_id="clinic")
    await service.post("/usage", request)
    await service.drained()
    await service.redis.run("DEL", *await service.redis.run("KEYS", "receipt:*"))
    await service.post("/usage", {**request, "quantity": 4})  # acked, though it should not be
    await service.drained()
    assert await service.sql.fetchval("SELECT SUM(units) FROM dead_letters") == 4
    account = Loading(service, postgres_pool, "ada", "clinic")
    await account.forget()
    await account.load()
    for subject in (account.who, account.who[:17]):
        assert await account.field("used:api_calls", subject) == "7"


async def test_a_contradicting_organization_is_not_loaded(
    service: Service, postgres_pool: db.Pool
) -> None:
    await service.drained()
    await on_plan(service.sql, "ada", allows("api_calls", "5"), organization="clinic")
    with pytest.raises(OrganizationMismatch):
        await Loading(service, postgres_pool, "ada", "other").load()
    await Loading(service, postgres_pool, "ada", "clinic").load()


async def test_a_default_tier_that_does_not_exist_is_named(
    service: Service, postgres_pool: db.Pool
) -> None:
    await service.drained()
    account = Loading(service, postgres_pool, "ada")
    with pytest.raises(NoDefaultTier):
        await Loader(postgres_pool, service.scripts, "nope", service.settings.partitions).load(
            account.partition, account.who, Missing.USER, 1_800_000_000_000, 0.0
        )


async def test_a_new_usage_type_is_loaded_into_a_warm_quota(service: Service) -> None:
    await service.post("/usage", usage("ada", 5))
    await add_plan(service.sql, "wider", allows("api_calls", "10"), allows("scans", "3"))
    await service.sql.execute(
        "INSERT INTO usage_types (usage_type, decimal_places, unit) VALUES ('scans', 0, 1)"
    )
    await subscribe(service.sql, "wider", user="bob")
    check = {"user_id": "bob", "usage_type": "api_calls", "quantity": 1}
    assert (await service.post("/quota/check", check))[1]["quota_remaining"] == 10


async def test_a_dead_letter_counts_in_a_pool_whose_period_is_not_the_users(
    service: Service, postgres_pool: db.Pool
) -> None:
    today = datetime.now(UTC).date()
    other_day = date(2024, 1, 1 + today.day % 28)
    await on_plan(
        service.sql, "ada", allows("api_calls", "50"), organization="clinic", anchor=other_day
    )
    await organization_on_plan(service.sql, "clinic", pool("api_calls", "90"))
    request = usage("ada", 3, idempotency_key="k")
    await service.post("/usage", request)
    await service.drained()
    await service.redis.run("DEL", *await service.redis.run("KEYS", "receipt:*"))
    await service.post("/usage", {**request, "quantity": 4})
    await service.drained()
    account = Loading(service, postgres_pool, "ada", "clinic")
    await account.forget()
    await account.load()
    assert await account.field("used:api_calls") == "7"
    assert await account.field("used:api_calls", account.who[:17]) == "7"


async def test_a_pools_quota_does_not_depend_on_which_member_asks(
    service: Service, postgres_pool: db.Pool
) -> None:
    """A member's own, newer subscription must not lock the others out of the pool."""
    await service.drained()
    await organization_on_plan(service.sql, "clinic", pool("api_calls", "9"))
    await on_plan(service.sql, "ann", allows("api_calls", "5"), organization="clinic")
    ann = Loading(service, postgres_pool, "ann", "clinic")
    bob = Loading(service, postgres_pool, "bob", "clinic")
    assert await ann.load() == [LoadOutcome.LOADED] * 2
    await service.redis.run("DEL", keys.quota(bob.partition, bob.who))
    await service.redis.run("HSET", keys.quota(bob.partition, bob.who[:17]), "epoch", "0")
    assert await bob.load() == [LoadOutcome.LOADED] * 2


async def test_partitions_that_the_database_was_not_made_with_load_nothing(
    service: Service, postgres_pool: db.Pool
) -> None:
    account = Loading(service, postgres_pool, "ada")
    with pytest.raises(NotLoaded):
        await Loader(postgres_pool, service.scripts, "basic", 3).load(
            account.partition, account.who, Missing.USER, 1_800_000_000_000
        )
