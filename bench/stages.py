"""What one round measures, a method each. Figures go to the results, answers to the books."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque

from bench import accounts, cpus, drainage, loads, peers, raw
from bench.check import Books
from bench.generator import Sample
from bench.histogram import Histogram
from bench.options import Options
from bench.peers import Peer
from bench.processes import Process
from bench.relay import Relay
from bench.results import GATEWAY, HALF, SLOW, SLOW_RATE, SLOW_S, Check, Point, Results
from bench.rig import Rig
from bench.traffic import HOT, LIMITED, REPEATS, SMALL, Population

_CURVE = (0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0)
_REPLAYED = 200  # requests sent a second time in the replay test
_FIRST = 100  # requests to each population before anything is timed
_SLOW_CONNECTIONS = 1_024
_LONG_S = 60.0  # more than a load that is counted in requests needs


class NotServing(Exception):
    """The gateway does not record; there is nothing to measure."""


class Stages:
    def __init__(self, rig: Rig, options: Options, results: Results, books: Books) -> None:
        self._rig = rig
        self._options = options
        self._results = results
        self._books = books
        self._peers: dict[str, Process] = {}
        self._half = Histogram()  # of all rounds
        self._forgetful: list[str] = []  # peers that did less than they said

    async def warm_up(self, found: list[Peer]) -> None:
        """Starts the peers that can run here and makes everybody's first requests."""
        for population in (SMALL, HOT):
            await accounts.load(self._rig, population)
        for population in (SMALL, HOT, LIMITED):
            sample = await self._own(population, count=_FIRST)
            if sample.recorded != _FIRST:
                raise NotServing(f"the gateway answers {dict(sample.statuses)}; see its log")
        for peer in found:
            if peer.missing is not None:
                self._results.missing[peer.name] = peer.missing
                continue
            process = peer.make(self._rig)
            await self._rig.start(process)
            self._peers[peer.name] = process
            await peers.prepare(self._rig, SMALL)
            await loads.closed(process, self._rig.traffic.singles(SMALL), self._options.short_s)

    async def saturation(self, setting: str) -> None:
        """Single records, closed loop: the gateway and each peer; another goes first each time."""
        group = f"saturation, {setting}"
        contenders = deque({GATEWAY: self._rig.gateway, **self._peers}.items())
        contenders.rotate(-len(self._results.values(group, GATEWAY)))
        for name, process in contenders:
            if name != GATEWAY:
                receipts, _ = await self._rig.appended()
                await peers.prepare(self._rig, SMALL, receipts)
            redis = self._rig.store if name == GATEWAY else self._rig.scratch
            before = cpus.cpu_seconds(redis.pid)
            sample = await loads.saturate(
                self._rig, process, SMALL, self._options.long_s, use_wrk=self._options.wrk
            )
            spent = cpus.cpu_seconds(redis.pid) - before
            self._results.add(group, name, "requests/s", sample.rate)
            self._cost(f"CPU per request, {setting}", name, sample.cpu_s, sample.answers)
            self._cost(f"Redis CPU per request, {setting}", name, spent, sample.answers)
            if name == GATEWAY:
                self._books.enter(sample)
            else:
                await self._peer_recorded(name, sample)

    async def mixes(self) -> None:
        """The gateway's other work, closed loop by our own generator."""
        traffic, results, seconds = self._rig.traffic, self._results, self._options.short_s
        for name, requests in {
            "single": traffic.singles(SMALL),
            "one hot organisation": traffic.singles(HOT),
            "replays (4 of 5)": traffic.singles(SMALL, repeats=REPEATS),
            "quota check": traffic.checks(SMALL),
        }.items():
            sample = await loads.closed(self._rig.gateway, requests, seconds)
            self._books.enter(sample)
            results.add("mixes", name, "requests/s", sample.rate)
            self._cost("CPU per request by mix", name, sample.cpu_s, sample.answers)
        sample = await loads.closed(self._rig.gateway, traffic.batches(SMALL), seconds)
        self._books.enter(sample)
        results.add("mixes", "batch of 100", "events/s", sample.event_rate)
        self._cost("CPU per event", "batch of 100", sample.cpu_s, sample.recorded)

    async def redis_alone(self) -> None:
        """The record script without a gateway, on the other Redis."""
        await raw.prepare(self._rig)
        for size in raw.CALL_SIZES:
            rate = await raw.throughput(self._rig, size, self._options.raw_s)
            self._results.add("redis alone", f"calls of {size}", "events/s", rate)
        size_b, fill = await raw.receipt_bytes(self._rig)
        self._results.add("memory", "receipt", "B", size_b)
        self._results.add("memory", "receipts per hash", "", fill)
        trips = await raw.round_trips(self._rig, self._options.round_trips)
        for name, value in zip(
            ("p50", "p95", "p99"), trips.histogram.percentiles_ms(50, 95, 99), strict=True
        ):
            self._results.add("bare round trip", name, "ms", value)

    async def half_load(self, saturation: float) -> None:
        """Latency from the intended start, at half of what the gateway can take."""
        rate = max(1, round(saturation / 2))
        sample = await self._open(rate)
        self._results.add(HALF, "rate", "requests/s", sample.rate)
        for name, value in zip(
            ("p50", "p95", "p99", "p99.9"),
            sample.histogram.percentiles_ms(50, 95, 99, 99.9),
            strict=True,
        ):
            self._results.add(HALF, name, "ms", value)
            if bare := self._results.values("bare round trip", name):
                self._results.add(HALF, f"{name} against a bare call", "x", value / bare[-1])
        self._half.merge(sample.histogram)
        curve = self._half.percentiles_ms(*_CURVE)
        self._results.curve = list(zip(_CURVE, curve, strict=True))

    async def ledger(self) -> None:
        """Drain of all that piled up, gateway and ledger both at work, and a bare COPY."""
        results, rig = self._results, self._rig
        results.add("memory", "undrained event", "B", await drainage.entry_bytes(rig))
        async with drainage.draining(rig) as ledger:
            drained = await drainage.drain(rig, ledger)
            beside = await self._own(SMALL)
        if drained.rate:
            results.add("ledger", "drain", "rows/s", drained.rate)
            results.add("ledger", "CPU per row", "us", drained.cpu_s * 1e6 / drained.seen)
        results.add("mixes", "single, ledger at work on the same core", "requests/s", beside.rate)
        copied = await drainage.copy_rate(rig, self._options.copy_rows)
        if copied:
            results.add("ledger", "raw COPY", "rows/s", copied)

    async def many_accounts(self, population: Population) -> None:
        """Throughput with few and with many accounts, each loaded before. All is drained."""
        results = self._results
        await accounts.subscribe(self._rig.sql, population)
        await accounts.load(self._rig, population)
        for _ in range(self._options.rounds):
            for name, one in (("1 k", SMALL), ("many", population)):
                sample = await self._own(one)
                results.add("accounts", name, "requests/s", sample.rate)
        results.notes.append(f"many accounts: {population.users:,} with a quota in Redis")

    async def slow_redis(self) -> None:
        """More than a Redis that answers 300 ms late can take: how soon callers are refused, what
        it costs in memory, and whether all is well when Redis is."""
        rig, results, seconds = self._rig, self._results, self._options.long_s
        async with Relay(rig.store.url) as relay:
            gateway = await rig.add_gateway(rig.plan.server, redis_url=relay.url)
            await self._normal(gateway)
            before = cpus.resident_bytes(gateway.pid)
            relay.delay_s = SLOW_S
            slow = await loads.opened(
                gateway, rig.traffic.singles(SMALL), SLOW_RATE, seconds, _SLOW_CONNECTIONS
            )
            self._books.enter(slow, 503)
            grown = cpus.resident_bytes(gateway.pid) - before
            relay.delay_s = 0.0
            await asyncio.sleep(SLOW_S)  # what was answered late is still on its way
            after = await self._normal(gateway)
            await gateway.stop()
        refusals = Histogram(slow.refusals).percentiles_ms(50, 99)
        for name, value in zip(("p50 of the 503s", "p99 of the 503s"), refusals, strict=True):
            results.add(SLOW, name, "ms", value)
        results.add(SLOW, "answered 503", "requests", slow.statuses[503])
        results.add(SLOW, "answered 201", "requests", slow.statuses[201])
        results.add(SLOW, "memory gained", "MB", grown / 1e6)
        good = after.statuses[201] == after.answers > 0
        results.checks.append(
            Check(
                "after a slow Redis all is recorded again, without a restart",
                good and not after.unknown,
                f"{after.statuses[201]} of {after.answers} requests",
            )
        )

    async def _normal(self, gateway: Process) -> Sample:
        requests = self._rig.traffic.singles(SMALL)
        sample = await loads.closed(gateway, requests, self._options.short_s)
        self._books.enter(sample)
        return sample

    async def workers(self) -> None:
        """One gateway worker against several, on all cores but the generator's."""
        every, rig = self._rig.plan.every, self._rig
        cores = every - rig.plan.load if len(every) > 2 else every
        for number in (1, max(2, len(cores))):
            gateway = await rig.add_gateway(cores, number)
            sample = await loads.closed(gateway, rig.traffic.singles(SMALL), self._options.long_s)
            self._books.enter(sample)
            name = f"GATEWAY_WORKERS={number}"
            self._results.add("scaling", name, "requests/s", sample.rate)
            self._cost("scaling, CPU per request", name, sample.cpu_s, sample.answers)
        if len(every) <= 2:
            self._results.notes.append(
                "scaling: on two cores the workers share them with Redis, Postgres and the "
                "generator; CPU per request says more than the throughput"
            )

    async def point(self, rate: int) -> Point:
        """One open loop of the saturation search."""
        sample = await self._open(rate)
        p50, p95, p99, p999 = sample.histogram.percentiles_ms(50, 95, 99, 99.9)
        failed = sample.unknown + sample.answers - sample.statuses[201]
        return Point(rate, sample.rate, p50, p95, p99, p999, failed)

    async def last_checks(self) -> list[Check]:
        """Asks a small pool for twice what it has, then sends recorded requests once more."""
        room, rig = accounts.LIMITED_RECORDS, self._rig
        asked = await loads.closed(rig.gateway, rig.traffic.singles(LIMITED), _LONG_S, 2 * room)
        self._books.enter(asked, 429)
        before, _ = await rig.appended()
        used = _FIRST
        requests = list(itertools.islice(rig.traffic.singles(SMALL), _REPLAYED))
        first = await loads.closed(rig.gateway, iter(requests), _LONG_S, _REPLAYED)
        again = await loads.closed(rig.gateway, iter(requests), _LONG_S, _REPLAYED)
        self._books.enter(first)
        self._books.enter(again)
        after, _ = await rig.appended()
        return [
            Check(
                "a pool admits up to its limit exactly",
                asked.recorded + used == room and asked.statuses[429] == 2 * room - asked.recorded,
                f"{asked.recorded + used} of {room}, {asked.statuses[429]} refused",
            ),
            Check(
                "replays are answered and add nothing",
                again.replayed == _REPLAYED and after - before == first.recorded == _REPLAYED,
                f"{again.replayed} of {_REPLAYED} replayed, {after - before} entries",
            ),
            Check(
                "peers record what they answer",
                not self._forgetful,
                "; ".join(self._forgetful) or f"{len(self._peers)} peers, every round",
            ),
            Check("the gateway still runs", rig.gateway.running, rig.gateway.name),
        ]

    async def _own(self, population: Population, count: int | None = None) -> Sample:
        seconds = self._options.short_s if count is None else _LONG_S
        requests = self._rig.traffic.singles(population)
        sample = await loads.closed(self._rig.gateway, requests, seconds, count)
        self._books.enter(sample)
        return sample

    async def _open(self, rate: int) -> Sample:
        requests = self._rig.traffic.singles(SMALL)
        sample = await loads.opened(self._rig.gateway, requests, rate, self._options.long_s)
        self._books.enter(sample)
        return sample

    async def _peer_recorded(self, name: str, sample: Sample) -> None:
        entries = await peers.recorded(self._rig)
        good = sample.statuses[201]
        if not good <= entries <= good + sample.unknown or good != sample.answers:
            self._forgetful.append(f"{name}: {good} of {sample.answers} good, {entries} entries")

    def _cost(self, group: str, name: str, cpu_s: float | None, events: int) -> None:
        if cpu_s and events:
            self._results.add(group, name, "us", cpu_s * 1e6 / events)
