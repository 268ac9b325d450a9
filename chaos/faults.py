"""What each kind of fault of a process or a server does: a method per kind, which also ends it."""

from __future__ import annotations

import asyncio
import random
import resource
import shutil
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from math import inf

from chaos import history, network
from chaos.accounts import Accounts
from chaos.clients import Clients
from chaos.report import Return
from chaos.returns import drained_again, taken_again
from chaos.rewind import rewind
from chaos.schedule import LINKS, Fault
from chaos.stand import Stand, children, send
from gateway.children import Child
from gateway.dev.servers import Server
from ledger import clock, db
from lua.connection import RedisConnection

CLOCK_OFF_S = 3600
_PATIENCE_S = 30.0
_WATCH_S = 10.0  # two ledgers that are frozen until the other has their work would wait for ever
_SETTLES_S = 3.0  # after a fault, until what it killed has started again
_POLL_S = 0.02


class Faults:
    """Makes faults happen. Those of one target follow each other; those of different ones may
    overlap in any way."""

    def __init__(self, stand: Stand, clients: Clients, accounts: Accounts) -> None:
        self._stand = stand
        self._clients = clients
        self._accounts = accounts
        self._told = clients.told
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._spans: dict[Fault, tuple[float, float]] = {}  # from when until when
        self._loading_s: dict[Fault, float] = {}  # until Redis answered
        self.taken: list[Return] = []
        self.drained: list[Return] = []

    async def happen(self, fault: Fault) -> None:
        """Begins when its time has come, returns when it is over. Half of the faults that Redis
        comes back from are over when usage is taken again, so that this can be measured; the others
        at once, so that the next may come in the middle of the recovery."""
        await asyncio.sleep(fault.at_ms / 1000)
        turn = "gateway" if fault.target == "worker" else fault.target
        async with self._turns[turn]:
            self._spans[fault] = clock.monotonic(), inf
            await self._act(fault, random.Random(fault.dice))
            self._spans[fault] = self._spans[fault][0], clock.monotonic()
            if fault.watched and fault.of_redis:
                refusals: Counter[str] = Counter()
                well = taken_again(self._stand, self._clients, self._accounts, refusals)
                await self._watch(fault, self.taken, well, refusals)

    async def _act(self, fault: Fault, dice: random.Random) -> None:
        if fault.target in LINKS:
            link = self._stand.links[fault.target]
            await network.FAULTS[fault.kind](link, fault.hold_ms / 1000, dice)
        else:
            await getattr(self, f"_{fault.kind}")(fault, dice)

    async def _watch(
        self,
        fault: Fault,
        returns: list[Return],
        well: Coroutine[None, None, None],
        refusals: Counter[str] | None = None,
    ) -> None:
        began = clock.monotonic()
        with suppress(TimeoutError):
            await asyncio.wait_for(well, _WATCH_S)
        ended = clock.monotonic()
        alone = not any(
            since < ended and until + (0 if other.of_redis else _SETTLES_S) > began
            for other, (since, until) in self._spans.items()
            if other is not fault
        )
        loading_s = self._loading_s.get(fault, 0.0)
        returns.append(
            Return(
                str(fault),
                round(ended - began, 2),
                round(loading_s, 2),
                alone,
                dict(refusals or {}),
            )
        )

    async def _start_redis(self, fault: Fault) -> None:
        began = clock.monotonic()
        await self._stand.redis.start()
        self._loading_s[fault] = clock.monotonic() - began

    async def _kill(self, fault: Fault, dice: random.Random) -> None:
        if fault.target in ("redis", "postgres"):
            server = self._server(fault.target)
            immediate = fault.target == "postgres" and dice.random() < 0.5
            server.kill(signal.SIGQUIT if immediate else signal.SIGKILL)
            await server.wait()
            await _hold(fault)
            await (self._start_redis(fault) if fault.target == "redis" else server.start())
        elif fault.target == "worker":
            send(await self._worker(dice), signal.SIGKILL)
        else:
            (await self._program(fault.target)).kill()
            if fault.of_ledger:
                await self._watch(fault, self.drained, drained_again(self._stand))

    async def _stop(self, fault: Fault, dice: random.Random) -> None:
        if fault.target == "worker":
            pids = [await self._worker(dice)]
        elif fault.target == "postgres":
            pids = [self._stand.postgres.pid, *children(self._stand.postgres.pid)]
        elif fault.target == "redis":
            pids = [self._stand.redis.pid]
        else:
            pids = [(await self._program(fault.target)).pid]
        for pid in pids:
            send(pid, signal.SIGSTOP)
        try:
            if fault.watched and fault.of_ledger:  # frozen at least until another has its work
                await self._watch(fault, self.drained, drained_again(self._stand))
            await _hold(fault)
        finally:
            for pid in pids:
                send(pid, signal.SIGCONT)

    async def _reload(self, fault: Fault, dice: random.Random) -> None:
        (await self._program("gateway")).kill(signal.SIGHUP)

    async def _clock(self, fault: Fault, dice: random.Random) -> None:
        await self._gateway_started_anew(CLOCK_OFF_S)
        await _hold(fault)
        await self._gateway_started_anew(0)

    async def _gateway_started_anew(self, clock_off_s: int) -> None:
        self._stand.set_gateway_clock_off(clock_off_s)
        gateway = await self._program("gateway")
        before = gateway.pid
        gateway.kill()
        await _until(lambda: gateway.running and gateway.pid != before)

    async def _flushall(self, fault: Fault, dice: random.Random) -> None:
        await self._flush()

    async def _flush(self) -> None:
        """Tries again where Postgres, which is asked first, suffers a fault of its own."""
        while True:
            try:
                async with self._stand.opened() as system:
                    return await history.flush(system, self._told)
            except (*db.UNAVAILABLE, db.PostgresError):
                await asyncio.sleep(_POLL_S)

    async def _scriptflush(self, fault: Fault, dice: random.Random) -> None:
        await self._redis("SCRIPT FLUSH")

    async def _expire(self, fault: Fault, dice: random.Random) -> None:
        """Half of all quotas; who uses them now finds entries that the ledger does not have yet."""
        redis = RedisConnection(self._stand.redis.url)
        try:
            quotas = [key async for key in redis.client.scan_iter("quota:*", 1_000)]
            if quotas:
                await redis.client.delete(*dice.sample(sorted(quotas), -(-len(quotas) // 2)))
        finally:
            await redis.close()

    async def _clientkill(self, fault: Fault, dice: random.Random) -> None:
        await self._redis("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")

    async def _rewrite(self, fault: Fault, dice: random.Random) -> None:
        await self._redis("BGREWRITEAOF")

    async def _redis(self, *command: str) -> None:
        redis = RedisConnection(self._stand.redis.url)
        try:
            await redis.run(*command)
        finally:
            await redis.close()

    async def _diskfull(self, fault: Fault, dice: random.Random) -> None:
        """Redis may write a little more, perhaps half of a script, and then ends by itself."""
        redis = self._stand.redis
        room = history.size(redis.folder) + dice.randrange(8_192)
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.prlimit(redis.pid, resource.RLIMIT_FSIZE, (room, most))
        with suppress(TimeoutError):
            await asyncio.wait_for(redis.wait(), _PATIENCE_S)
        redis.kill()  # where nobody wrote
        await redis.wait()
        await _hold(fault)
        await self._start_redis(fault)

    async def _powerloss(self, fault: Fault, dice: random.Random) -> None:
        redis = self._stand.redis
        redis.kill()
        await redis.wait()
        await self._clients.answered()  # what Redis said last may still be on its way to them
        history.cut_unanswered(redis.folder, self._told, dice)
        await self._start_redis(fault)

    async def _torn(self, fault: Fault, dice: random.Random) -> None:
        redis = self._stand.redis
        redis.kill()
        await redis.wait()
        history.cut_anywhere(redis.folder, self._told, dice)
        await self._start_redis(fault)

    async def _emptied(self, fault: Fault, dice: random.Random) -> None:
        """The network goes first, so that what is lost can be known to the last entry."""
        redis = self._stand.redis
        links = [self._stand.links[name] for name in LINKS if name.endswith("redis")]
        async with self._turns["gateway-redis"], self._turns["ledger-redis"]:
            for link in links:
                await link.cut()
            await self._flush()
            redis.kill()
            await redis.wait()
            shutil.rmtree(redis.folder / "appendonlydir")
            await _hold(fault)
            await self._start_redis(fault)
            for link in links:
                await link.restore()

    async def _terminate(self, fault: Fault, dice: random.Random) -> None:
        async with self._stand.opened() as system:
            await system.sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'billing' AND pid <> pg_backend_pid()"
            )

    async def _rewind(self, fault: Fault, dice: random.Random) -> None:
        """Redis is left alone meanwhile: one that is lost together with the database, or restarts
        twice since the state that comes back, is for an operator."""
        end = signal.SIGQUIT if dice.random() < 0.5 else signal.SIGKILL
        async with self._turns["redis"]:
            await rewind(self._stand, fault.hold_ms / 1000, end)

    def _server(self, name: str) -> Server:
        return self._stand.redis if name == "redis" else self._stand.postgres

    async def _program(self, name: str) -> Child:
        """The program, once it runs."""
        program = next(one for one in self._stand.programs if one.name == name)
        await _until(lambda: program.running)
        return program

    async def _worker(self, dice: random.Random) -> int:
        """The process id of a gateway worker, once there is one."""
        gateway = await self._program("gateway")
        await _until(lambda: bool(children(gateway.pid)))
        return dice.choice(children(gateway.pid))


async def _until(holds: Callable[[], bool]) -> None:
    """Waits for somebody who is still starting because of the fault before."""
    async with asyncio.timeout(_PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - processes do not tell
            await asyncio.sleep(_POLL_S)


async def _hold(fault: Fault) -> None:
    await asyncio.sleep(fault.hold_ms / 1000)
