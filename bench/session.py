"""One run: the order of measuring. Everything compared is measured in turn within a round, so
that a disturbance of the machine meets all of them."""

from __future__ import annotations

import os
import platform
from collections.abc import Awaitable, Callable
from datetime import UTC
from pathlib import Path
from statistics import median

from bench import accounts, cpus, drainage
from bench.check import Books, verify
from bench.options import Options
from bench.peers import Peer
from bench.results import GATEWAY, Point, Results
from bench.rig import Rig
from bench.stages import Stages
from bench.traffic import Population
from ledger import clock

_QUIET = 0.7  # processes running in the last minute, on a machine that is left alone
_ALWAYS, _OFF = "fsync always", "AOF off"
_SEARCH = (0.4, 1.2)  # of the closed loop's saturation
_ORGANIZATIONS = 1_000  # of the many accounts, at most
_MANY = 3  # number of that population


async def measure(
    folder: Path,
    options: Options,
    found: list[Peer],
    say: Callable[[str], None],
    before_check: Callable[[Rig], Awaitable[None]] | None = None,
) -> Results:
    """Runs everything in a data folder of its own. `before_check` is for tests: it may damage
    what the check at the end must notice."""
    plan = cpus.plan()
    results = Results(about=_about(plan, options))
    books = Books()
    say("starting servers")
    async with Rig(folder, plan) as rig:
        results.about["Redis"] = await _redis_version(rig)
        await accounts.add_plans(rig.sql)
        stages = Stages(rig, options, results, books)
        await stages.warm_up(found)
        for number in range(1, options.rounds + 1):
            say(f"round {number} of {options.rounds}")
            await rig.shorten(rig.redis)
            await _round(stages, results)
        results.add("memory", "gateway worker", "MB", cpus.resident_bytes(rig.gateway.pid) / 1e6)
        if options.accounts:
            say(f"{options.accounts:,} accounts")
            await drainage.drain_all(rig)
            organizations = min(_ORGANIZATIONS, max(1, options.accounts // 20))
            await stages.many_accounts(Population(_MANY, options.accounts, organizations))
        if options.search_steps:
            results.search = await search(
                stages.point, _saturation(results), options.search_steps, say
            )
        if options.workers:
            say("several gateway processes")
            await stages.workers()
        say("slow Redis")
        await stages.slow_redis()
        if options.append_only_off:
            await rig.append_only(False)
            for number in range(1, options.rounds + 1):
                say(f"round {number}: saturation, {_OFF}")
                await stages.saturation(_OFF)
            await rig.append_only(True)
        say("correctness")
        checks = await stages.last_checks()
        await drainage.drain_all(rig)
        if before_check is not None:
            await before_check(rig)
        results.checks += [*await verify(rig, books), *checks]
    results.about["finished"] = clock.now().astimezone(UTC).isoformat(timespec="seconds")
    return results


async def _round(stages: Stages, results: Results) -> None:
    await stages.saturation(_ALWAYS)
    await stages.mixes()
    await stages.redis_alone()
    await stages.half_load(_saturation(results))
    await stages.ledger()


async def search(
    point: Callable[[int], Awaitable[Point]],
    saturation: float,
    steps: int,
    say: Callable[[str], None] = lambda text: None,
) -> list[Point]:
    """Halves the interval around the closed loop's saturation: the highest fixed rate at which
    p99 keeps the SLO. All points tried, by rate."""
    low, high = (round(share * saturation) for share in _SEARCH)
    points = []
    for _ in range(steps):
        rate = max(1, (low + high) // 2)
        say(f"saturation search: {rate} requests/s")
        tried = await point(rate)
        points.append(tried)
        low, high = (rate, high) if tried.holds else (low, rate)
    return sorted(points, key=lambda one: one.rate)


def _saturation(results: Results) -> float:
    """Requests per second of the gateway, as far as this run knows by now."""
    return median(results.values(f"saturation, {_ALWAYS}", GATEWAY))


async def _redis_version(rig: Rig) -> str:
    server = await rig.redis.run("INFO", "server")
    valkey = server.get("valkey_version")
    return f"Valkey {valkey}" if valkey else f"Redis {server['redis_version']}"


def _about(plan: cpus.Plan, options: Options) -> dict[str, str]:
    busy = os.getloadavg()[0]
    return {
        "started": clock.now().isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "Python": platform.python_version(),
        "load before": f"{busy:.1f}" + (": BUSY, the figures mean little" if busy > _QUIET else ""),
        "cores": plan.text,
        "rounds": f"{options.rounds}, interleaved",
        "closed loop": f"32 connections, {'wrk' if options.wrk else 'our own generator'}",
    }
