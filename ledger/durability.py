"""Looks at the Redis server every few seconds: does it keep what DURABILITY promises?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from ledger.domain.durability import Profile, Server, Verdict, Wanted, judge, refusal
from ledger.settings import Settings
from lua.connection import RedisUnavailable
from lua.multiplexer import Multiplexer

log = structlog.get_logger()

LOOK_S = 2.0  # a look takes Redis less than 0.1 ms
RETRY_S = 0.2  # while it does not answer: who comes back may be another one
_SETTINGS = ("appendfsync", "no-appendfsync-on-rewrite", "repl-backlog-ttl")


class Watch:
    """Judges the server; `judged` is told each verdict, and None when the server did not answer."""

    def __init__(
        self,
        redis: Multiplexer,
        wanted: Wanted,
        judged: Callable[[Verdict | None], None] = lambda verdict: None,
    ) -> None:
        self._redis = redis
        self.wanted = wanted
        self._judged = judged
        self._before: Server | None = None
        self._reasons: list[str] = []  # as last logged

    async def look(self) -> Verdict:
        """The verdict of this moment. Raises `RedisUnavailable`."""
        try:
            found = await observe(self._redis)
        except RedisUnavailable:
            self._judged(None)
            raise
        self._before = found.after(self._before)
        verdict = judge(self._before, self.wanted)
        self._log(verdict)
        self._judged(verdict)
        return verdict

    async def for_ever(self) -> None:
        """Looks again and again, until cancelled."""
        while True:
            pause = LOOK_S
            try:
                await self.look()
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
    redis = Multiplexer(settings.redis_url)
    try:
        return refusal(judge(await observe(redis), wanted(settings)))
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
