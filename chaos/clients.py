"""Callers that behave as real ones do: they send singles and batches, ask again under the same key
until they know, sometimes give up, replay what was answered, and now and then reuse a key."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from chaos.accounts import CALLS, MINUTES, Account, Accounts
from chaos.told import Told
from gateway.client.transport import Answer, Http
from ledger import clock
from ledger.domain.ids import usage_id_for_key

ATTEMPT_S = 3.0  # the client library's own
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5
_PATIENCE_S = 60.0  # until somebody who wants to know gives up
_HASTY = 0.25  # of the requests: given up after the first attempt
_REPLAYED, _REUSED = 0.05, 0.02  # of the records
_MINUTES = 0.3
_REMEMBERED = 5_000  # answers that may be replayed


class Unit(msgspec.Struct, frozen=True):
    """One record as it is sent, and the id it must get. `answered` when this is a replay, `reused`
    when it is another body under the key of something recorded."""

    usage_id: bytes
    user_id: UUID
    key: str
    text: str
    answered: str | None = None
    reused: bool = False


class Clients:
    """All callers of an episode. They send `rate` records a second between them, or fewer where the
    service takes fewer."""

    def __init__(self, told: Told, rate: int) -> None:
        self.told = told
        self._rate = rate
        self._remembered: deque[tuple[Unit, str]] = deque(maxlen=_REMEMBERED)
        self._under_way: set[asyncio.Task[Answer]] = set()
        self._stopped = False

    async def run(self, http: Http, accounts: Accounts, seed: str) -> None:
        """Sends until `stop`, and returns when every caller knows or has given up."""
        self._stopped = False
        sizes = [200, 200, 200, 50, *[1] * 8]
        each_s = sum(sizes) / self._rate  # every caller sends once in this time
        callers = [
            _Caller(self, http, accounts, f"{seed}-{number}", size, each_s)
            for number, size in enumerate(sizes)
        ]
        await asyncio.gather(*(caller.run() for caller in callers))

    def stop(self) -> None:
        self._stopped = True

    @property
    def stopped(self) -> bool:
        return self._stopped

    async def answered(self) -> None:
        """Returns when everything that is under way now has its answer, or will have none."""
        if self._under_way:
            await asyncio.wait(set(self._under_way))

    async def attempt(
        self, http: Http, units: Sequence[Unit], heard: Callable[[Answer], None] = lambda _: None
    ) -> list[Unit]:
        """Sends once; the units that nothing definite is known about. `heard` is told the
        answer."""
        single = len(units) == 1
        body = units[0].text if single else f'{{"records":[{",".join(u.text for u in units)}]}}'
        asking = asyncio.ensure_future(
            http.attempt(
                "POST", "/usage" if single else "/usage/batch", ATTEMPT_S, body=body.encode()
            )
        )
        self._under_way.add(asking)
        try:
            answer = await asking
            heard(answer)
            return self._hear(units, answer)
        finally:
            self._under_way.discard(asking)

    def _hear(self, units: Sequence[Unit], answer: Answer) -> list[Unit]:
        if answer.status == 200 and "results" in answer.document:
            results: Sequence[Mapping[str, Any]] = answer.document["results"]
            if len(results) != len(units):
                self.told.contradict(units[0].usage_id, "another batch's answer")
            answers = [
                Answer(said["status"], said, replayed=said.get("replayed", False))
                for said in results
            ]
        else:
            answers = [answer] * len(units)
        return [unit for unit, one in zip(units, answers, strict=True) if not self._take(unit, one)]

    def _take(self, unit: Unit, answer: Answer) -> bool:
        """Notes what a caller was told; whether that is definite."""
        told, status = self.told, answer.status
        told.outcomes[str(status)] += 1
        if status in (0, 503, 408) or status >= 500:
            if not answer.without_effect:
                told.maybe.add(unit.usage_id)
            if status == 500:
                told.contradict(unit.usage_id, "answered 500")
            return False
        if status == 201:
            self._recorded(unit, answer)
        elif unit.answered is not None and not (unit.reused and status == 422):
            told.contradict(unit.usage_id, f"recorded before, now answered {status}")
        elif status not in (429, 422) or (status == 422 and not unit.reused):
            told.contradict(unit.usage_id, f"answered {status}")
        return True

    def _recorded(self, unit: Unit, answer: Answer) -> None:
        said = answer.document
        at = str(said["recorded_at"])
        if UUID(said["usage_id"]).bytes != unit.usage_id:
            self.told.contradict(unit.usage_id, "another record's answer")
        if unit.reused:
            self.told.contradict(unit.usage_id, "another body under its key was recorded")
        elif unit.answered is not None and unit.answered != at:
            self.told.contradict(unit.usage_id, "replayed with another answer than the first")
        self.told.outcomes["replayed"] += answer.replayed
        self.told.acked.add(unit.usage_id)
        if unit.answered is None:
            self._remembered.append((unit, at))

    def past(self, dice: random.Random, *, reused: bool) -> Unit | None:
        """A record that was answered before: the same again, or another body under its key."""
        if not self._remembered:
            return None
        unit, at = dice.choice(self._remembered)
        text = unit.text.replace('"quantity":', '"quantity":1', 1) if reused else unit.text
        return msgspec.structs.replace(unit, text=text, answered=at, reused=reused)


class _Caller:
    """One connection's worth of requests, `size` records each."""

    def __init__(
        self, clients: Clients, http: Http, accounts: Accounts, name: str, size: int, each_s: float
    ) -> None:
        self._clients = clients
        self._http = http
        self._accounts = accounts
        self._name = name
        self._size = size
        self._each_s = each_s
        self._dice = random.Random(name)
        self._number = 0

    async def run(self) -> None:
        due = clock.monotonic()
        while not self._clients.stopped:
            await self._settle([self._unit() for _ in range(self._size)])
            due = max(due + self._each_s, clock.monotonic())  # no rush after an outage
            await asyncio.sleep(due - clock.monotonic())

    async def _settle(self, units: list[Unit]) -> None:
        """Asks again until all is known."""
        hasty = self._dice.random() < _HASTY
        gives_up = clock.monotonic() + _PATIENCE_S
        pause = _FIRST_PAUSE_S
        while units := await self._clients.attempt(self._http, units):
            if hasty or clock.monotonic() > gives_up:
                return
            await asyncio.sleep(self._dice.random() * pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _unit(self) -> Unit:
        chance = self._dice.random()
        if chance < _REPLAYED + _REUSED:
            past = self._clients.past(self._dice, reused=chance >= _REPLAYED)
            if past is not None:
                return past
        self._number += 1
        return unit(self._accounts.choose(self._dice), f"{self._name}-{self._number}", self._dice)


def unit(account: Account, key: str, dice: random.Random) -> Unit:
    """A record of an account that nobody has sent before."""
    text = _text(account, key, dice)
    return Unit(usage_id_for_key(account.user_id, key), account.user_id, key, text)


def _text(account: Account, key: str, dice: random.Random) -> str:
    if dice.random() < _MINUTES:
        usage_type, quantity = MINUTES, Decimal(dice.randint(1, 300)) / 100
    else:
        usage_type, quantity = CALLS, Decimal(dice.randint(1, 5))
    organization = (
        f'"organization_id":"{account.organization_id}",' if account.organization_id else ""
    )
    return (
        f'{{"user_id":"{account.user_id}",{organization}"usage_type":"{usage_type}",'
        f'"quantity":{quantity},"idempotency_key":"{key}"}}'
    )
