"""Once a day one of all ledgers compares invoices with Stripe; after a failure it tries again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec
import structlog

from ledger import clock, db, store
from ledger.reconcile.against_stripe import AgainstStripe, latest
from ledger.reconcile.stripe_report import StripeReport
from ledger.stripe_reading import StripeReading

log = structlog.get_logger()

EVERY = timedelta(days=1)
# Longer than one page takes with all its tries: a ledger that died lets another begin.
LEASE = timedelta(hours=1)
FIRST_BACKOFF, LONGEST_BACKOFF = timedelta(minutes=1), timedelta(hours=1)


class Daily:
    """`now` is the real time: Stripe has it too."""

    def __init__(
        self,
        database_url: str,
        connection: db.Connection,
        reading: StripeReading,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self._database_url = database_url
        self._db = connection
        self._reading = reading
        self._now = now

    async def run_once(self) -> StripeReport | None:
        """Compares, if it is due and nobody else does; what came of it."""
        now = self._now()
        claimed = await store.stripe_reconcile.claim(self._db, now, now + LEASE)
        if claimed is None:
            return None
        try:
            report = await self._compared(claimed, now)
        except (*db.UNAVAILABLE, db.PostgresError):
            until = self._now() + _backoff(claimed)
            await store.stripe_reconcile.put_off(self._db, claimed, until)
            raise
        for one in (*report.findings, *report.ledger.findings):
            log.error("reconcile_found", **msgspec.to_builtins(one))
        done = not report.not_compared
        next_at = now + EVERY if done else self._now() + _backoff(claimed)
        await store.stripe_reconcile.note(self._db, now, next_at, report.counts, completed=done)
        if done:
            log.info("stripe_compared", **report.compared, **report.counts)
        else:
            log.warning("stripe_not_compared", reasons=report.not_compared)
        return report

    async def _compared(self, claimed: int, now: datetime) -> StripeReport:
        async def keep() -> None:
            await store.stripe_reconcile.put_off(self._db, claimed, self._now() + LEASE)

        # One of its own, and patient: it reads whole tables.
        connection = await db.connect(self._database_url, patient=True)
        try:
            return await AgainstStripe(connection, self._reading, latest(now), now, keep).run()
        finally:
            await connection.close(timeout=1)


def _backoff(attempts: int) -> timedelta:
    return min(FIRST_BACKOFF * (1 << min(attempts - 1, 10)), LONGEST_BACKOFF)
