"""One episode: load, faults, healing, and then the question whether all still holds."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import aiohttp

from chaos import check
from chaos.accounts import Accounts
from chaos.check import Chains, System
from chaos.clients import Clients
from chaos.faults import Faults
from chaos.report import Line
from chaos.schedule import Episode
from chaos.stand import Stand
from gateway.children import StartError
from gateway.client.transport import Http
from ledger import clock, db, store
from lua.connection import RedisUnavailable
from lua.types import Fenced

BACK_S = 60.0  # within which all must work again by itself; the protocol's own waits are 6 s
_FAULTS_END_S = 90.0
_CONNECTIONS = 32
_LOAD_AFTER_S = 1.5  # of undisturbed load at the end: what faults left behind must show
_POLL_S = 0.05
_TROUBLE = (*db.UNAVAILABLE, db.PostgresError, RedisUnavailable, Fenced, aiohttp.ClientError)


class Broken(Exception):
    """The service does not come back by itself; the message says what is missing."""


async def play(stand: Stand, clients: Clients, seals: Chains, episode: Episode, seed: int) -> Line:
    """Runs an episode to its end and checks everything that the stand has ever recorded."""
    began = clock.monotonic()
    told = clients.told
    before = told.outcomes.copy(), len(told.acked), told.unknown
    accounts = Accounts(episode.number)
    async with stand.opened() as system:
        await accounts.subscribe(system.sql)
        rows = await _rows(system)
    http = Http(stand.url, stand.token, _CONNECTIONS)
    faults = Faults(stand, clients, accounts)
    back_s, drained_s = -1.0, -1.0
    wrong: list[str] = []
    try:
        # Of a new stand: a database put back to before its first vouching is for an operator.
        await _back_in_service(stand)
        load = asyncio.create_task(clients.run(http, accounts, f"{seed}-{episode.number}"))
        try:
            await _all_happen(faults, episode)
            healed = clock.monotonic()
            await _back_in_service(stand)
            back_s = clock.monotonic() - healed
            await asyncio.sleep(_LOAD_AFTER_S)
        finally:
            clients.stop()
            await load
        drained_s = await _drained(stand)
    except (Broken, StartError) as error:
        wrong.append(str(error))
    finally:
        await http.close()
    events = 0
    if not wrong:
        async with stand.opened() as system:
            events = await _rows(system) - rows
            wrong += await check.violations(system, told, seals)
            wrong += await check.nothing_was_set_aside(system.sql)
            wrong += await check.losses_are_audited(system.sql)
            wrong += await check.no_time_but_that_of_redis(system.sql)
    wrong += told.contradictions()
    return Line(
        episode=episode.number,
        faults=[str(one) for one in episode.faults],
        events=events,
        acked=len(told.acked) - before[1],
        unknown=told.unknown - before[2],
        outcomes=dict(told.outcomes - before[0]),
        lost=len(told.lost),
        back_s=round(back_s, 2),
        drained_s=round(drained_s, 2),
        seconds=round(clock.monotonic() - began, 1),
        taken=faults.taken,
        drained=faults.drained,
        violations=wrong,
    )


async def _all_happen(faults: Faults, episode: Episode) -> None:
    try:
        async with asyncio.timeout(_FAULTS_END_S), asyncio.TaskGroup() as group:
            for one in episode.faults:
                group.create_task(faults.happen(one))
    except TimeoutError:
        raise Broken("a fault does not end: is a server not starting?") from None
    except BaseExceptionGroup as errors:
        error = errors.exceptions[0]
        if isinstance(error, _TROUBLE):
            raise Broken(f"a fault cannot be made: {type(error).__name__}: {error}") from None
        raise error from None


async def _rows(system: System) -> int:
    found: int = await system.sql.fetchval("SELECT COUNT(*) FROM usage_keys")
    return found


async def _back_in_service(stand: Stand) -> None:
    """Returns when the gateway says that it is ready, Postgres included."""
    said = "nothing"
    try:
        async with asyncio.timeout(BACK_S), aiohttp.ClientSession() as session:
            while True:
                try:
                    host, port = stand.gateway.address
                    async with session.get(f"http://{host}:{port}/readyz") as answer:
                        said = await answer.text()
                        if answer.status == HTTPStatus.OK and '"status":"ready"' in said:
                            return
                except _TROUBLE:
                    pass
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise Broken(f"not ready {BACK_S:.0f} s after the last fault: {said}") from None


async def _drained(stand: Stand) -> float:
    """Waits until nothing is left in the streams; seconds that it took."""
    began = clock.monotonic()
    try:
        async with asyncio.timeout(BACK_S):
            while True:
                try:
                    async with stand.opened() as system:
                        if not await _left(system):
                            return clock.monotonic() - began
                except _TROUBLE:
                    pass
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise Broken(f"not drained {BACK_S:.0f} s after the load") from None


async def _left(system: System) -> bool:
    for cursor in await store.cursors(system.sql):
        tail = await system.scripts.read(cursor.partition, after=cursor.last_id, count=1)
        if tail.entries:
            return True
    return False
