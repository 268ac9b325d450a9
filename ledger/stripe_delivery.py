"""Delivers to Stripe what is owed, call by call. Any number of workers, in any number of ledgers.

1. claim    the first call of a payer that is due; how it is tried is committed before it is sent
2. call     outside any transaction
3. record   what came of it; the payer's next call is due then

A worker that dies between leaves the call claimed for a while; the next one tries it under the
same key, by which Stripe knows it. Of one payer there is one call at a time, in order, and one
meter event; a payer whose call fails holds up nobody else. What cannot succeed as it is waits for
a person, and so does what the payer is owed after it, but for events: their sum needs no order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Literal

import msgspec
import structlog

from ledger import clock, store
from ledger.db import Connection
from ledger.domain.stripe_attempt import Attempt
from ledger.domain.stripe_egress import NotOpaque
from ledger.domain.stripe_invoice import Ids
from ledger.domain.stripe_meter import is_too_old
from ledger.store.stripe_calls import Due, Parked
from ledger.stripe_api import StripeApi, StripeObject
from ledger.stripe_calls import NO_CUSTOMER, tell_delivered, tell_parked
from ledger.stripe_failures import Ambiguous, KeyRefused, Refused, TooOld, TryLater, Unknown
from ledger.stripe_key import accepted, refused

log = structlog.get_logger()

# A look-up may read many pages, each with a deadline of its own.
WORK_S = 120
# Longer than any call takes: two workers must not try one at once. And longer than what is made
# takes to show (`stripe_attempt.SETTLED`).
LEASE = timedelta(seconds=WORK_S + 60)
FIRST_BACKOFF, LONGEST_BACKOFF = timedelta(seconds=1), timedelta(hours=1)

_PARKED: dict[type[Exception], Parked] = {
    Refused: "refused", Ambiguous: "ambiguous", NotOpaque: "not_opaque", TooOld: "too_old",
}  # fmt: skip


class _Claimed(msgspec.Struct, frozen=True):
    """A call that is this worker's for a while."""

    due: Due
    claim: int
    step: Literal["send", "look_up"]
    attempt: Attempt
    ids: Ids

    @property
    def is_given(self) -> bool:
        """A customer that the organisation has in Stripe already: nothing is asked."""
        return self.due.call.operation == "customer" and self.due.given is not None

    @property
    def is_event(self) -> bool:
        """Usage for a meter: Stripe knows it by its identifier, whatever key it comes under."""
        return self.due.call.operation == "meter_event"


class Delivery:
    """`now` is the real time: Stripe forgets keys by it, whatever a test clock says."""

    def __init__(
        self,
        connection: Connection,
        api: StripeApi,
        now: Callable[[], datetime] = clock.now,
        random: Random | None = None,
    ) -> None:
        self._db = connection
        self._api = api
        self._now = now
        self._random = random or Random()

    async def run_once(self) -> bool:
        """Makes one call that is due; whether there was any."""
        now = self._now()
        until = await store.stripe_state.stopped_until(self._db)
        if until is not None and now < until:
            return False
        claimed = await self._claim(now)
        if claimed is not None:
            await self._deliver(claimed)
        return claimed is not None

    async def _claim(self, now: datetime) -> _Claimed | None:
        async with self._db.transaction():
            due = await store.stripe_calls.due(self._db, now)
            if due is None:
                return None
            step = due.attempt.next(now)
            attempt = due.attempt.sent(now) if step == "send" else due.attempt
            customer = due.customer
            if due.call.operation in ("invoice", "meter_event"):
                # From here on it is this one: the body of what is sent again must be the same.
                customer = due.customer or due.given or due.made
            claim = await store.stripe_calls.claim(
                self._db, due.call_id, attempt, customer, now + LEASE
            )
        ids = Ids(customer=customer, invoice=due.stripe_invoice)
        return _Claimed(due, claim, step, attempt, ids)

    async def _deliver(self, one: _Claimed) -> None:
        """Whatever comes of it, the next call is not this one's fault."""
        try:
            async with asyncio.timeout(WORK_S):
                made = await self._ask(one)
        except KeyRefused:
            await self._stop(one)
        except TryLater as error:
            await self._again(one, one.attempt, "try_later", str(error), error.after_s or 0)
        except Unknown as error:
            attempt = one.attempt.failed(stored=error.stored)
            if one.is_event and attempt.key_spent:
                attempt = attempt.another_key()
            await self._again(one, attempt, "unknown", str(error))
        except (Refused, Ambiguous, NotOpaque, TooOld) as error:
            await self._park(one, error)
        except TimeoutError:
            await self._again(one, one.attempt, "unknown", "took too long")
        except Exception as error:
            # It may have been sent. Never the error's own text: that may repeat what was.
            reason = type(error).__name__
            log.error("stripe_call_failed", call_id=one.due.call_id, reason=reason)
            await self._again(one, one.attempt, "unknown", reason)
        else:
            if made is None:
                await self._nothing_found(one)
            else:
                await self._done(one, made)

    async def _ask(self, one: _Claimed) -> str | None:
        """Stripe's id of what was made; None where a look-up has found nothing."""
        call = one.due.call
        if one.is_given:
            return one.due.given
        found: StripeObject | None
        if one.step == "look_up":
            assert one.attempt.since is not None, "what was never sent is not looked up"
            found = await self._api.find(call, one.ids, one.attempt.since)
        else:
            if one.is_event and is_too_old(call, self._now()):
                raise TooOld
            found = await self._api.send(call, one.ids, key_number=one.attempt.number)
        return found.id if found else None

    async def _done(self, one: _Claimed, stripe_id: str) -> None:
        now, due = self._now(), one.due
        async with self._db.transaction():
            if not await store.stripe_calls.done(self._db, due.call_id, stripe_id, now):
                return
            operation, invoice_id = due.call.operation, due.invoice_id
            if operation == "finalize" and invoice_id is not None:
                await store.stripe_calls.set_stripe_invoice(self._db, invoice_id, stripe_id)
            if operation in ("finalize", "void") and invoice_id is not None:
                await tell_delivered(self._db, due.payer, invoice_id, operation, stripe_id, now)
            await store.stripe_state.count(self._db, "sent")
            if not one.is_given:
                await accepted(self._db)

    async def _nothing_found(self, one: _Claimed) -> None:
        due, now = one.due, self._now()
        attempt = one.attempt.nothing_found()
        await store.stripe_calls.again(self._db, due.call_id, one.claim, attempt, now, None)

    async def _again(
        self, one: _Claimed, attempt: Attempt, outcome: str, error: str, after_s: int = 0
    ) -> None:
        wait = max(self._backoff(one.claim), timedelta(seconds=after_s))
        at = attempt.not_before(self._now() + wait)
        async with self._db.transaction():
            await store.stripe_calls.again(self._db, one.due.call_id, one.claim, attempt, at, error)
            await store.stripe_state.count(self._db, outcome)
        log.warning(
            "stripe_call_waiting", call_id=one.due.call_id, reason=error, attempts=one.claim
        )

    async def _park(self, one: _Claimed, error: Refused | Ambiguous | NotOpaque | TooOld) -> None:
        due = one.due
        why = _PARKED[type(error)]
        said = f"{why}: {error.code}" if isinstance(error, Refused) else why
        async with self._db.transaction():
            if await store.stripe_calls.park(
                self._db, due.call_id, one.claim, why, said, other_customer=said == NO_CUSTOMER
            ):
                about = due.call_id, due.payer, due.invoice_id, due.call.operation
                await tell_parked(self._db, *about, said, self._now())
            if why not in ("not_opaque", "too_old"):  # of those Stripe knows nothing
                await accepted(self._db)

    async def _stop(self, one: _Claimed) -> None:
        """The call may be right: it keeps its turn, and nobody sends anything for a while."""
        now = self._now()
        due = one.due
        async with self._db.transaction():
            await store.stripe_calls.again(
                self._db, due.call_id, one.claim, one.attempt, now, "key_refused"
            )
            await store.stripe_state.count(self._db, "key_refused")
            await refused(self._db, now)

    def _backoff(self, attempts: int) -> timedelta:
        """Longer and longer, and anything up to that: those that failed together do not all come
        back together."""
        most = min(FIRST_BACKOFF * 2 ** min(attempts, 12), LONGEST_BACKOFF)
        first, last = (one // timedelta(milliseconds=1) for one in (FIRST_BACKOFF, most))
        return timedelta(milliseconds=self._random.randint(first, last))
