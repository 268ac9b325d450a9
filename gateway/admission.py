"""The hot path: all events waiting for a partition go to Redis as one script call.

An event's way: lane -> record script -> answer. Only what Redis does not know leaves it: a quota
that is not loaded, a key that is not remembered, a server that is not vouched for; then the
ledger is asked and the event is sent once more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from uuid import UUID

import msgspec

from gateway.problems import Kind, Problem, unavailable
from ledger import db, store
from ledger.domain.usage import ms_of
from ledger.entitlements import Loader, NoDefaultTier, NotLoaded, OrganizationMismatch
from ledger.recovery import Superseded
from lua.connection import RedisUnavailable
from lua.keys import partition_of
from lua.scripts import (
    Answer,
    CheckAnswer,
    Event,
    Fenced,
    LookedUp,
    Missing,
    Outcome,
    QuotaHashes,
    Scripts,
)

CALL_EVENTS = 128  # events in one script call: Redis serves nobody else meanwhile (about 1 ms)
LANE_EVENTS = 5_000  # waiting for a partition; beyond it an early 503 beats a late answer
ROUNDS = 6  # fence, load, look-up, and again when something changes between


class Admission:
    """Decides and records events; reads quotas."""

    def __init__(
        self,
        scripts: Scripts,
        loader: Loader,
        pool: db.Pool,
        *,
        partitions: int,
        enforce: bool,
        undrained_cap: int,
    ) -> None:
        self._scripts = scripts
        self._loader = loader
        self._pool = pool
        self._partitions = partitions
        self._enforce = enforce
        self._lanes = [
            _Lane(scripts, partition, enforce, undrained_cap) for partition in range(partitions)
        ]

    async def record(self, events: Sequence[Event]) -> list[Answer | Problem]:
        """One answer per event, in order; each is all or nothing on its own. Events of one
        subject are decided in the order given."""
        answers: list[Answer | Problem | None] = [None] * len(events)
        asked = list(events)
        open_ = list(range(len(events)))
        for _ in range(ROUNDS):
            outcomes = await asyncio.gather(
                *(self._lane(asked[i].who).submit(asked[i]) for i in open_), return_exceptions=True
            )
            again = []
            for i, outcome in zip(open_, outcomes, strict=True):
                if isinstance(outcome, Answer) and outcome.outcome not in _NEEDS_LEDGER:
                    answers[i] = outcome
                elif isinstance(outcome, RedisUnavailable):
                    answers[i] = _redis(outcome)
                elif isinstance(outcome, Problem):
                    answers[i] = outcome
                elif isinstance(outcome, BaseException) and not isinstance(outcome, Fenced):
                    raise outcome
                else:
                    again.append((i, outcome))
            if not again:
                break
            open_ = []
            ledger_said = await asyncio.gather(
                *(self._prepare(asked[i], outcome) for i, outcome in again)
            )
            for (i, _), said in zip(again, ledger_said, strict=True):
                if isinstance(said, Event):
                    asked[i] = said
                    open_.append(i)
                else:
                    answers[i] = said
        moving = unavailable("quotas are changing faster than they can be loaded; nothing recorded")
        return [moving if answer is None else answer for answer in answers]

    async def check(self, who: bytes, usage_type: str, units: int) -> tuple[int, CheckAnswer]:
        """What recording would answer now, and the service's time (ms)."""
        pool, partition = _pool_of(who), partition_of(who, self._partitions)
        for _ in range(ROUNDS):
            try:
                checked = await self._scripts.check(
                    partition, who, pool, enforce=self._enforce, usage_type=usage_type, units=units
                )
            except Fenced:
                await self._vouch(partition)
                continue
            except RedisUnavailable as error:
                raise _redis(error) from None
            if checked.answer.outcome is not Outcome.MISS:
                return checked.now, checked.answer
            await self._load(partition, who, Missing(checked.answer.detail), checked.now)
        raise unavailable("the quota is changing faster than it can be loaded")

    async def quota(self, who: bytes) -> QuotaHashes:
        """The quota hashes of a user and its pool, loaded when they are not there."""
        pool, partition = _pool_of(who), partition_of(who, self._partitions)
        for _ in range(ROUNDS):
            try:
                hashes = await self._scripts.quota(partition, who, pool)
            except Fenced:
                await self._vouch(partition)
                continue
            except RedisUnavailable as error:
                raise _redis(error) from None
            if not hashes.missing:
                return hashes
            await self._load(partition, who, hashes.missing, hashes.now)
        raise unavailable("the quota is changing faster than it can be loaded")

    def _lane(self, who: bytes) -> _Lane:
        return self._lanes[partition_of(who, self._partitions)]

    async def _prepare(
        self, event: Event, outcome: Answer | BaseException
    ) -> Event | Answer | Problem:
        """Asks the ledger for what Redis lacked; the event to send again, or its answer."""
        partition = partition_of(event.who, self._partitions)
        try:
            if not isinstance(outcome, Answer):
                await self._vouch(partition)
                return event
            if outcome.outcome is Outcome.MISS:
                await self._load(partition, event.who, Missing(outcome.detail), outcome.recorded_at)
                return event
            return await self._look_up(event)
        except Problem as problem:
            return problem

    async def _vouch(self, partition: int) -> None:
        try:
            await self._loader.recover(partition, self._lanes[partition].acked)
        except RedisUnavailable as error:
            raise _redis(error) from None
        except Superseded:
            raise unavailable("Redis holds another history; an operator must decide") from None
        except (*db.UNAVAILABLE, db.PostgresError):
            raise unavailable("Redis restarted and waits for Postgres to vouch for it") from None

    async def _load(self, partition: int, who: bytes, missing: Missing, now_ms: int) -> None:
        try:
            await self._loader.load(partition, who, missing, now_ms)
        except Fenced:
            await self._vouch(partition)
        except OrganizationMismatch:
            raise Problem(
                Kind.CONFLICT, "the user's subscription belongs to another organization"
            ) from None
        except NoDefaultTier:
            raise Problem(Kind.INTERNAL, "BILLING_TIER_DEFAULT is not in the catalogue") from None
        except NotLoaded as error:
            raise unavailable(str(error)) from None
        except RedisUnavailable as error:
            raise _redis(error) from None
        except db.UNAVAILABLE:
            raise unavailable(
                "this account's quota is not loaded and Postgres does not answer"
            ) from None

    async def _look_up(self, event: Event) -> Event | Answer:
        """A keyed event that Redis does not remember and would refuse: was it recorded before?"""
        if event.looked_up is LookedUp.UNREACHABLE:
            raise unavailable("whether this key was recorded before cannot be known right now")
        try:
            found = await store.answers(self._pool, [UUID(bytes=event.usage_id)])
        except db.UNAVAILABLE:
            return msgspec.structs.replace(event, looked_up=LookedUp.UNREACHABLE)
        past = found.get(UUID(bytes=event.usage_id))
        if past is None:
            return msgspec.structs.replace(event, looked_up=LookedUp.UNKNOWN)
        if past.fingerprint != event.fingerprint:
            return Answer(Outcome.CONFLICT)
        return Answer(Outcome.REPLAYED, ms_of(past.recorded_at), past.remaining, int(past.exceeded))


_NEEDS_LEDGER = (Outcome.MISS, Outcome.LOOK_UP)


class _Lane:
    """Events waiting for one partition; at most one call is under way, the next takes all that
    came meanwhile. So calls grow with the load instead of their number."""

    def __init__(self, scripts: Scripts, partition: int, enforce: bool, cap: int) -> None:
        self._scripts = scripts
        self._partition = partition
        self._enforce = enforce
        self._cap = cap
        self._waiting: deque[tuple[Event, asyncio.Future[Answer]]] = deque()
        self._sender: asyncio.Task[None] | None = None
        self.acked = "0-0"  # highest stream id this process has answered for

    def submit(self, event: Event) -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= LANE_EVENTS:
            future.set_exception(unavailable("too many requests are waiting for Redis"))
            return future
        self._waiting.append((event, future))
        if self._sender is None:
            self._sender = asyncio.ensure_future(self._send())
        return future

    async def _send(self) -> None:
        try:
            while self._waiting:
                await self._send_some()
        finally:
            self._sender = None

    async def _send_some(self) -> None:
        count = min(len(self._waiting), CALL_EVENTS)
        taken = [self._waiting.popleft() for _ in range(count)]
        try:
            recorded = await self._scripts.record(
                self._partition,
                [event for event, _ in taken],
                enforce=self._enforce,
                cap=self._cap,
            )
        except Exception as error:  # whatever it is, it is these callers' and nobody else's
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
            return
        self.acked = recorded.last_id or self.acked
        for (_, future), answer in zip(taken, recorded.answers, strict=True):
            if not future.done():
                future.set_result(answer)


def _pool_of(who: bytes) -> bytes | None:
    return who[:17] if who[:1] == b"o" else None


def _redis(error: RedisUnavailable) -> Problem:
    if error.outcome_unknown:
        return unavailable(
            "Redis did not answer; whether the usage was recorded is unknown: "
            "retry with the same Idempotency-Key",
            outcome_unknown=True,
        )
    return unavailable("Redis refuses to write; nothing was recorded")
