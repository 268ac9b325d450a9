"""A delivery as small as it can be, for tests of the adapter: it tries until it is told done.

Between two tries it forgets all but the stored attempt, as after a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

from ledger.domain.stripe_attempt import Attempt
from ledger.domain.stripe_invoice import Bill, Call, Ids, customer_call, invoice_calls
from ledger.stripe_api import StripeApi, StripeObject
from ledger.stripe_failures import TryLater, Unknown
from tests.stripe_fake.clock import Clock

MOST = 60  # tries of one call: more means that it will never be done
SHORT = timedelta(seconds=2)


class Delivery:
    """`pause`: how long until the next try. `crashes`: whether what was just learnt is lost."""

    def __init__(
        self,
        api: StripeApi,
        clock: Clock,
        pause: Callable[[], timedelta] = lambda: SHORT,
        crashes: Callable[[], bool] = lambda: False,
    ) -> None:
        self.api = api
        self._clock = clock
        self._pause = pause
        self._crashes = crashes

    async def bill(self, bill: Bill) -> Ids:
        """Everything that an invoice needs, in order."""
        customer = await self.call(customer_call(bill.payer_id), Ids())
        ids = Ids(customer=customer.id)
        for call in invoice_calls(bill):
            done = await self.call(call, ids)
            if call.operation == "invoice":
                ids = Ids(customer=customer.id, invoice=done.id)
        return ids

    async def call(self, call: Call, ids: Ids) -> StripeObject:
        attempt = Attempt()
        for _ in range(MOST):
            now = self._clock.now()
            try:
                if attempt.next(now) == "look_up":
                    assert attempt.since is not None
                    found = await self.api.find(call, ids, attempt.since)
                    if found is not None:
                        return found
                    attempt = attempt.nothing_found()
                    continue
                attempt = attempt.sent(now)
                done = await self.api.send(call, ids, key_number=attempt.number)
                if not self._crashes():
                    return done
            except TryLater as error:
                self._clock.advance(timedelta(seconds=error.after_s or 0))
            except Unknown as error:
                if not self._crashes():
                    attempt = attempt.failed(stored=error.stored)
            self._clock.advance(self._pause())
            now = self._clock.now()
            self._clock.advance(attempt.not_before(now) - now)
        raise AssertionError(f"{call.operation} is never done")


def calls_of(bill: Bill) -> Iterator[Call]:
    yield customer_call(bill.payer_id)
    yield from invoice_calls(bill)
