"""Looks at the Redis servers every few seconds: do they keep what DURABILITY promises?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
import structlog

from ledger.domain.durability import Profile, Server, Verdict, Wanted, judge, refusal, worst
from ledger.settings import Settings
from lua.cluster import Cluster
from lua.connection import RedisUnavailable
from lua.multiplexer import Multiplexer

log = structlog.get_logger()

LOOK_S = 2.0  # a look takes Redis less than 0.1 ms
RETRY_S = 0.2  # while it does not answer: who comes back may be another one
_SETTINGS = ("appendfsync", "no-appendfsync-on-rewrite", "repl-backlog-ttl")


class Servers(Protocol):
    """What is looked at; `lua.cluster.Cluster` is one."""

    async def primaries(self) -> Mapping[str, Multiplexer]: ...


class Look(msgspec.Struct, frozen=True):
    """What the servers are worth at one moment: each by name, None where it did not answer, and
    all of them together."""

    of: Mapping[str, Verdict | None]
    verdict: Verdict


class Watch:
    """Judges the servers; `judged` is told each look, and None when no server answered."""

    def __init__(
        self,
        redis: Servers,
        wanted: Wanted,
        judged: Callable[[Look | None], None] = lambda look: None,
    ) -> None:
        self._redis = redis
        self.wanted = wanted
        self._judged = judged
        self._before: dict[str, Server] = {}
        self._reasons: list[str] = []  # as last logged

    async def look(self) -> Look:
        """The verdicts of this moment. Raises `RedisUnavailable` when no server answers."""
        try:
            found = await look(self._redis, self.wanted, self._before)
        except RedisUnavailable:
            self._judged(None)
            raise
        self._log(found.verdict)
        self._judged(found)
        return found

    async def for_ever(self) -> None:
        """Looks again and again, until cancelled."""
        while True:
            pause = LOOK_S
            try:
                if None in (await self.look()).of.values():
                    pause = RETRY_S
            except RedisUnavailable:
                pause = RETRY_S
            except Exception:  # a reply that cannot be read must not end the watch
                log.exception("durability_look_failed")
                self._judged(None)
            await asyncio.sleep(pause)

    def _log(self, verdict: Verdict) -> None:
        if verdict.reasons == self._reasons:
            return
        self._reasons = verdict.reasons
        say = log.warning if verdict.reasons else log.info
        say(
            "durability",
            wanted=verdict.wanted.label,
            in_force=verdict.in_force.label,
            reasons=verdict.reasons,
        )


def wanted(settings: Settings) -> Wanted:
    profile = Profile[settings.durability.upper().replace("-", "_")]
    return Wanted(profile, settings.durability_replicas)


async def look(redis: Servers, wanted: Wanted, before: dict[str, Server] | None = None) -> Look:
    """Judges every server as it is now, knowing what it was `before`, which is brought up to now.
    Raises `RedisUnavailable` when none answers."""
    before = {} if before is None else before
    servers = await redis.primaries()
    said = await asyncio.gather(*map(observe, servers.values()), return_exceptions=True)
    verdicts: dict[str, Verdict | None] = {}
    for name, server in zip(servers, said, strict=True):
        if isinstance(server, Server):
            before[name] = server.after(before.get(name))
            verdicts[name] = judge(before[name], wanted)
        elif isinstance(server, RedisUnavailable):
            verdicts[name] = None
        else:
            raise server
    answered = {name: verdict for name, verdict in verdicts.items() if verdict is not None}
    if not answered:
        raise next(one for one in said if isinstance(one, RedisUnavailable))
    alone = len(verdicts) == 1
    return Look(verdicts, next(iter(answered.values())) if alone else worst(answered))


async def observe(redis: Multiplexer) -> Server:
    """What the server says of itself, asked in one go. Raises `RedisUnavailable`."""
    return Server.of(*await asyncio.gather(info(redis), _config(redis)))


async def info(redis: Multiplexer) -> dict[str, str]:
    """INFO, by name. Raises `RedisUnavailable`."""
    said = await redis.run("INFO")
    lines = (line.partition(":") for line in said.decode().splitlines())
    return {name: value for name, colon, value in lines if colon}


async def refused_at_start(settings: Settings) -> str | None:
    """Why production must not start on this Redis; None when it may, in dev, and when Redis does
    not answer: then nothing is recorded until it does and has been judged."""
    if settings.is_dev:
        return None
    redis = Cluster(settings.redis_url, Multiplexer)
    try:
        return refusal((await look(redis, wanted(settings))).verdict)
    except RedisUnavailable:
        return None
    finally:
        await redis.close()


async def _config(redis: Multiplexer) -> dict[str, str]:
    """The settings that INFO does not tell; none where the server refuses to say."""
    try:
        reply = await redis.run("CONFIG", "GET", *_SETTINGS)
    except RedisUnavailable as error:
        if error.outcome_unknown:  # it did not answer at all
            raise
        return {}
    return {reply[i].decode(): reply[i + 1].decode() for i in range(0, len(reply), 2)}
