"""Usage for Stripe's meters: what was used and is in no event yet becomes one, written once.

An event says what was used of a type in a billing period since the one before: the running total
less what was taken, which moves in the same transaction. So every record, late one and correction
is in exactly one event, whatever dies when. `ledger.stripe_delivery` sends them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from ledger import clock, store
from ledger.db import Connection
from ledger.domain.stripe_invoice import customer_call
from ledger.domain.stripe_meter import event_call, event_id, event_name, latest_minute
from ledger.invoicing import Invoicing
from ledger.store.metering import ToMeter
from ledger.store.stripe_calls import Payer
from ledger.stripe_api import StripeApi
from ledger.stripe_failures import StripeFailure

log = structlog.get_logger()

# Stripe takes a thousand calls a second of all customers, and of one one at a time.
EVERY = timedelta(minutes=5)
BATCH = 200  # events that are written in one transaction
SLICE = 200  # subscriptions whose usage is added up by one statement, which has 10 s


class Metering:
    """`now` is the real time: Stripe's is, whatever a test clock says."""

    def __init__(
        self, connection: Connection, api: StripeApi, now: Callable[[], datetime] = clock.now
    ) -> None:
        self._db = connection
        self._api = api
        self._now = now
        self._lacking: set[str] = set()

    async def run_once(self) -> int:
        """Writes events of what is due; how many."""
        try:
            counted = await self._counted()
        except StripeFailure as error:
            log.warning("stripe_meters_unknown", reason=f"{type(error).__name__}: {error}")
            return 0
        written, after = 0, UUID(int=0)
        while some := await store.metering.subscriptions(self._db, after, SLICE):
            taken = await self._write(some, counted)
            written += taken or 0
            if taken is None:
                break
            if taken < BATCH:  # else they may have more
                after = some[-1]
        return written

    async def _write(self, some: Sequence[UUID], counted: Sequence[str]) -> int | None:
        """Events of these subscriptions; None while that is not for us to do."""
        now = self._now()
        async with self._db.transaction():
            if not await store.metering.hold(self._db):
                return None
            due = await store.metering.to_meter(self._db, some, counted, now - EVERY, BATCH)
            return sum([await self._take(one, now) for one in due])

    async def _counted(self) -> list[str]:
        """The usage types that Stripe has a meter for. Usage of another one waits in the ledger:
        each of its events would be refused."""
        meters = await self._api.meters()
        counted = []
        for one in sorted(await store.usage_types(self._db)):
            meter = meters.get(event_name(one))
            if meter is not None and meter.takes_ours:
                counted.append(one)
                self._lacking.discard(one)
            elif one not in self._lacking:
                self._lacking.add(one)
                reason = "there is none" if meter is None else "it does not add up our values"
                log.warning(
                    "stripe_meter_missing",
                    usage_type=one,
                    event_name=event_name(one),
                    reason=reason,
                )
        return counted

    async def _take(self, one: ToMeter, now: datetime) -> bool:
        stored = await store.subscriptions.by_id(self._db, one.subscription_id)
        period = await Invoicing(self._db, stored).span(one.billing_period)
        latest = latest_minute(period, now)
        if latest is None:
            return False  # a test clock is ahead: Stripe takes nothing of tomorrow
        if one.used < one.taken and now < period.end:
            return False  # a correction: the usage to come makes it good
        payer = Payer.of(stored)
        minute = await store.metering.free_minute(
            self._db, payer.payer_id, one.usage_type, period.start, latest
        )
        if minute is None:
            return False
        units = one.used - one.taken
        event = event_id(one.subscription_id, one.billing_period, one.usage_type, units, minute)
        await store.metering.take(self._db, one, event, payer.payer_id, minute, now)
        calls = [customer_call(payer.payer_id), event_call(event, one.usage_type, units, minute)]
        await store.stripe_calls.insert(self._db, payer, None, calls, now)
        return True
