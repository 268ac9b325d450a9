"""The hot path: events share calls of the record script.

An event's way: lane -> record script -> answer. Only what Redis does not know leaves it: a quota
that is not loaded, a key that is not remembered, a server that is not vouched for; then the
ledger is asked and the event is sent once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from uuid import UUID

import msgspec
import structlog

from gateway.lane import Done, Lanes
from gateway.problems import Kind, Problem, unavailable
from ledger import db, store
from ledger.domain.usage import ms_of
from ledger.entitlements import Loader, NotLoaded
from ledger.recovery import Superseded
from ledger.snapshot import NoDefaultTier, OrganizationMismatch
from lua.connection import RedisUnavailable
from lua.keys import partition_of, pool_of
from lua.scripts import Scripts
from lua.types import Answer, CheckAnswer, Event, Fenced, LookedUp, Missing, Outcome, QuotaHashes

log = structlog.get_logger()

LEDGER_S = 5  # for a load or look-up; a frozen Postgres must not hold callers longer
ROUNDS = 8  # fence, look-up, load, look-up, and again when something changes between

Outcomes = Mapping[int, Answer | BaseException]
Said = dict[int, Event | Answer | Problem]
"""By the event's place in the request: the event to send again, or what to answer."""


class Admission:
    """Decides and records events; reads quotas."""

    def __init__(
        self,
        scripts: Scripts,
        lanes: Lanes,
        loader: Loader,
        pool: db.Pool,
        *,
        partitions: int,
        enforce: bool,
    ) -> None:
        self._scripts = scripts
        self._loader = loader
        self._pool = pool
        self._partitions = partitions
        self._enforce = enforce
        self._lanes = lanes

    async def record(self, events: Sequence[Event]) -> list[Answer | Problem]:
        """One answer per event, in order; each is all or nothing on its own. Events of one
        subject are decided in the order given, unless Redis has forgotten the script meanwhile or
        moved the partition."""
        asked: dict[int, Event] = dict(enumerate(events))
        answers: dict[int, Answer | Problem] = {}
        for _ in range(ROUNDS):
            since = asyncio.get_running_loop().time()
            outcomes = await self._ask(asked)
            if not any(_needs_ledger(outcome) for outcome in outcomes.values()):
                answers |= {index: _final(outcome) for index, outcome in outcomes.items()}
                return [answers[index] for index in range(len(events))]
            again: dict[int, Event] = {}
            for said in await asyncio.gather(
                self._vouch_for(asked, outcomes, since),
                self._load_for(asked, outcomes, since),
                self._look_up_for(asked, outcomes),
            ):
                for index, one in said.items():
                    if isinstance(one, Event):
                        again[index] = one
                    else:
                        answers[index] = one
            for index, outcome in outcomes.items():
                if index not in again and index not in answers:
                    answers[index] = _final(outcome)
            if not again:
                return [answers[index] for index in range(len(events))]
            asked = dict(sorted(again.items()))
        moving = unavailable("quotas are changing faster than they can be loaded; nothing recorded")
        return [answers.get(index, moving) for index in range(len(events))]

    async def _ask(self, asked: Mapping[int, Event]) -> dict[int, Answer | BaseException]:
        """What the script says to each event, or the error that kept it from it."""
        said: dict[int, Answer | BaseException] = {}
        all_said = asyncio.get_running_loop().create_future()

        def done(index: int, outcome: Answer | BaseException) -> None:
            said[index] = outcome
            if len(said) == len(asked) and not all_said.done():
                all_said.set_result(None)

        for index, event in asked.items():
            self._lanes.of[event.partition].submit(event, partial(done, index))
        if asked:
            await all_said
        return said

    async def _vouch_for(
        self, asked: Mapping[int, Event], outcomes: Outcomes, since: float
    ) -> Said:
        """Has the servers of fenced partitions vouched for, once each."""
        fenced = [i for i, outcome in outcomes.items() if _is(outcome, Outcome.FENCED)]
        return await self._each(
            fenced, asked, lambda index: self._vouch(asked[index].partition, since)
        )

    async def _load_for(self, asked: Mapping[int, Event], outcomes: Outcomes, since: float) -> Said:
        """Has missing quotas loaded, once per subject."""
        missing = {i: one for i, one in outcomes.items() if _is(one, Outcome.MISS)}

        async def load(index: int) -> None:
            event, answer = asked[index], missing[index]
            assert isinstance(answer, Answer)
            await self._load(
                event.partition, event.who, Missing(answer.detail), answer.recorded_at, since
            )

        return await self._each(list(missing), asked, load)

    async def _each(
        self,
        indexes: Sequence[int],
        asked: Mapping[int, Event],
        prepare: Callable[[int], Awaitable[None]],
    ) -> Said:
        done = await asyncio.gather(*(prepare(i) for i in indexes), return_exceptions=True)
        said: Said = {}
        for index, error in zip(indexes, done, strict=True):
            if error is None:
                # What was looked up before is old by now: a retry may have been recorded, drained
                # and forgotten meanwhile.
                said[index] = msgspec.structs.replace(asked[index], looked_up=LookedUp.NOT_YET)
            elif isinstance(error, Problem):
                said[index] = error
            else:
                log.error("prepare_failed", exc_info=error)
                said[index] = Problem(
                    Kind.INTERNAL, "an unexpected error; it was logged", outcome="not_recorded"
                )
        return said

    async def _look_up_for(self, asked: Mapping[int, Event], outcomes: Outcomes) -> Said:
        """Keyed events that Redis does not remember and would refuse: recorded before? Asked in
        one query, because a refused batch would otherwise ask a thousand times."""
        indexes = [i for i, one in outcomes.items() if _is(one, Outcome.LOOK_UP)]
        if not indexes:
            return {}
        ids = [UUID(bytes=asked[i].usage_id) for i in indexes]
        try:
            async with asyncio.timeout(LEDGER_S):
                found = await store.answers(self._pool, ids)
        except (*db.UNAVAILABLE, db.PostgresError):
            return {i: _not_looked_up(asked[i]) for i in indexes}
        return {
            i: _looked_up(asked[i], found.get(usage_id))
            for i, usage_id in zip(indexes, ids, strict=True)
        }

    def submit(self, event: Event, done: Done) -> None:
        """Sends one event; for callers who fall back to `record` when `settled` says so."""
        self._lanes.of[event.partition].submit(event, done)

    async def check(self, who: bytes, usage_type: str, units: int) -> tuple[int, CheckAnswer]:
        """What recording would answer now, and the service's time (ms)."""
        pool, partition = pool_of(who), self.partition(who)
        for _ in range(ROUNDS):
            since = asyncio.get_running_loop().time()
            try:
                checked = await self._scripts.check(
                    partition, who, pool, enforce=self._enforce, usage_type=usage_type, units=units
                )
            except Fenced:
                await self._vouch(partition, since)
                continue
            except RedisUnavailable as error:
                raise _redis(error) from None
            if checked.answer.outcome is not Outcome.MISS:
                return checked.now, checked.answer
            await self._load(partition, who, Missing(checked.answer.detail), checked.now, since)
        raise unavailable("the quota is changing faster than it can be loaded")

    async def quota(self, who: bytes) -> QuotaHashes:
        """The quota hashes of a user and its pool, loaded when they are not there."""
        pool, partition = pool_of(who), self.partition(who)
        for _ in range(ROUNDS):
            since = asyncio.get_running_loop().time()
            try:
                hashes = await self._scripts.quota(partition, who, pool)
            except Fenced:
                await self._vouch(partition, since)
                continue
            except RedisUnavailable as error:
                raise _redis(error) from None
            if not hashes.missing:
                return hashes
            await self._load(partition, who, hashes.missing, hashes.now, since)
        raise unavailable("the quota is changing faster than it can be loaded")

    def partition(self, who: bytes) -> int:
        return partition_of(who, self._partitions)

    async def _vouch(self, partition: int, since: float) -> None:
        try:
            async with asyncio.timeout(LEDGER_S):
                acked = self._lanes.acked.get(partition, "0-0")
                await self._loader.recover(partition, since, acked)
        except RedisUnavailable as error:
            raise _redis(error) from None
        except Superseded:
            raise unavailable("Redis holds another history; an operator must decide") from None
        except (*db.UNAVAILABLE, db.PostgresError):
            raise unavailable("Redis restarted and waits for Postgres to vouch for it") from None

    async def _load(
        self, partition: int, who: bytes, missing: Missing, now_ms: int, since: float
    ) -> None:
        try:
            async with asyncio.timeout(LEDGER_S):
                await self._loader.load(partition, who, missing, now_ms, since)
        except Fenced:
            await self._vouch(partition, since)
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
        except (*db.UNAVAILABLE, db.PostgresError):
            raise unavailable(
                "this account's quota is not loaded and Postgres does not answer"
            ) from None


def settled(outcome: Answer | BaseException) -> Answer | Problem | None:
    """The answer of a submitted event; None when the ledger must be asked first: then nothing was
    recorded and `record` does the rest."""
    return None if _needs_ledger(outcome) else _final(outcome)


_NEEDS_LEDGER = (Outcome.FENCED, Outcome.MISS, Outcome.LOOK_UP)


def _needs_ledger(outcome: Answer | BaseException) -> bool:
    return isinstance(outcome, Answer) and outcome.outcome in _NEEDS_LEDGER


def _is(outcome: Answer | BaseException, kind: Outcome) -> bool:
    return isinstance(outcome, Answer) and outcome.outcome is kind


def _final(outcome: Answer | BaseException) -> Answer | Problem:
    """An outcome that the ledger has nothing to add to."""
    if isinstance(outcome, RedisUnavailable):
        return _redis(outcome)
    if isinstance(outcome, Answer | Problem):
        return outcome
    log.error("record_failed", exc_info=outcome)
    return Problem(Kind.INTERNAL, "an unexpected error; it was logged", outcome="unknown")


def _not_looked_up(event: Event) -> Event | Problem:
    if event.looked_up is LookedUp.UNREACHABLE:  # the script insists: it must be known
        return unavailable("whether this key was recorded before cannot be known right now")
    return msgspec.structs.replace(event, looked_up=LookedUp.UNREACHABLE)


def _looked_up(event: Event, past: store.PastAnswer | None) -> Event | Answer | Problem:
    if past is None and event.looked_up is LookedUp.UNKNOWN:  # a receipt is there, but unreadable
        return unavailable(
            "whether this key was recorded before cannot be known right now", outcome_unknown=True
        )
    if past is None:
        return msgspec.structs.replace(event, looked_up=LookedUp.UNKNOWN)
    if past.fingerprint != event.fingerprint:
        return Answer(Outcome.CONFLICT)
    return Answer(Outcome.REPLAYED, ms_of(past.recorded_at), past.remaining, int(past.exceeded))


def _redis(error: RedisUnavailable) -> Problem:
    if error.outcome_unknown:
        return unavailable(
            "Redis did not answer; whether the usage was recorded is unknown: "
            "retry with the same Idempotency-Key",
            outcome_unknown=True,
        )
    return unavailable("Redis refuses to write; nothing was recorded")
