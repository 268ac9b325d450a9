"""A service on a real cluster, and callers who do not give up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import msgspec
import pytest
from redis.asyncio.cluster import RedisCluster

from ledger import loops
from ledger.domain.ids import dev_uuid
from ledger.settings import Settings
from lua.keys import Account, partition_of
from tests.cluster.nodes import Nodes, formed_in
from tests.conftest import Service, Services
from tests.flow.invariants import Told, check

PARTITIONS = 8
EACH = 2  # users of each partition
PAUSE_S = 0.01  # of a caller who was refused


@pytest.fixture(scope="session")
async def lasting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nodes]:
    async with formed_in(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture
async def nodes(lasting: Nodes) -> Nodes:
    """Three primaries with a replica each, as they were formed and empty."""
    await lasting.empty()
    return lasting


@pytest.fixture
def settings(settings: Settings, nodes: Nodes) -> Settings:
    return msgspec.structs.replace(settings, redis_url=nodes.url, partitions=PARTITIONS)


@pytest.fixture
async def service(services: Services, settings: Settings) -> AsyncIterator[Service]:
    service = await start(services, settings)
    yield service
    await service.redis.close()


async def start(services: Services, settings: Settings) -> Service:
    """Its `redis` is redis-py's own client of a cluster: what the checks see, it has found."""
    service = await services.start(settings)
    await service.redis.close()
    whole: Any = Whole(settings.redis_url)
    service.redis = whole
    async with asyncio.timeout(30):
        while (await ready(service))["status"] != "ready":
            await service.drained()
    return service


class Whole:
    def __init__(self, url: str) -> None:
        self.client = RedisCluster.from_url(url)

    async def close(self) -> None:
        await self.client.aclose()


async def ready(service: Service) -> dict[str, Any]:
    async with service.http.get(f"{service.url}/readyz") as response:
        said: dict[str, Any] = await response.json()
        assert (response.status == 503) == (said["status"] == "unready")
        return said


def users_of(partition: int) -> list[str]:
    names = (f"user-{number}" for number in count())
    found = ((partition_of(Account(dev_uuid(one)).who, PARTITIONS), one) for one in names)
    mine = (one for at, one in found if at == partition)
    return [next(mine) for _ in range(EACH)]


USERS = {partition: users_of(partition) for partition in range(PARTITIONS)}


def usage(user: str, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "usage_type": "api_calls", "quantity": 1, **more}


class Callers:
    """One for each user: sends usage one by one, each with a key and until it is taken."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.told = Told()
        self.seen: Counter[str] = Counter()
        self.taken: Counter[int] = Counter()  # by partition
        self._more = asyncio.Event()
        self.stopped = False

    async def run(self) -> None:
        await asyncio.gather(
            *(self._caller(one, user) for one, users in USERS.items() for user in users)
        )
        self.told.unknown = 0  # everything was asked again until it was acknowledged

    async def _caller(self, partition: int, user: str) -> None:
        for number in count():
            if self.stopped:
                return
            request = usage(user, idempotency_key=f"{number}")
            while not await self._once(request):  # noqa: ASYNC110 - its own turn
                await asyncio.sleep(PAUSE_S)
            self.taken[partition] += 1
            self._more.set()

    async def _once(self, request: dict[str, Any]) -> bool:
        answer = await self._service.post("/usage", request)
        status = self.told.heard(answer)
        self.seen[f"{status} {answer[1].get('outcome', '')}".strip()] += 1
        assert status in (201, 503), answer
        return status == 201

    async def until_taken(self, partitions: Callable[[int], bool] = lambda _: True) -> None:
        """Until each of these partitions has taken more than it has now."""
        before = Counter(self.taken)
        wanted = [one for one in USERS if partitions(one)]
        async with asyncio.timeout(30):
            while any(self.taken[one] < before[one] + 2 * EACH for one in wanted):
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def under_load(service: Service) -> AsyncIterator[Callers]:
    """Callers and a whole ledger; afterwards every invariant is checked."""
    callers, stop = Callers(service), asyncio.Event()
    ledger = asyncio.create_task(loops.run(service.settings, stop))
    calling = asyncio.create_task(callers.run())
    try:
        await callers.until_taken()
        yield callers
        await callers.until_taken()
        callers.stopped = True
        await calling
    finally:
        calling.cancel()
        stop.set()
        await ledger
    await service.drained()
    await check(service, callers.told)


async def epochs(service: Service) -> set[int]:
    """1 where no history was ever lost."""
    return {row["epoch"] for row in await service.sql.fetch("SELECT epoch FROM stream_cursor")}
