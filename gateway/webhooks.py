"""What Stripe tells: believed by its signature alone, kept once, and seen to by the ledger.

Nothing is done here: Stripe waits for few seconds, and tells again for days what was not answered
2xx. Whoever has no secret costs one HMAC and is never brought before Redis or Postgres. Nobody is
locked out for being wrong often: that would let anybody silence Stripe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from gateway import metrics
from gateway.messages import Response, encoder
from gateway.problems import Kind, Problem, unavailable
from ledger import clock, db, store
from ledger.domain import stripe_event, stripe_signature
from ledger.domain.stripe_event import NoEvent
from ledger.domain.stripe_signature import BadSignature, Signature
from ledger.settings import Secret

log = structlog.get_logger()

MAX_EVENT = 64 * 1024
LOG_EVERY_S = 60  # a flood of forged ones must not fill a disk with lines


class Received(Response):
    """`kept`: it is of a type that changes something here."""

    received: bool
    kept: bool


class StripeWebhooks:
    """`POST /webhooks/stripe`, free of HTTP. `now` is the real time: Stripe's is."""

    def __init__(
        self, pool: db.Pool, secrets: Sequence[Secret], now: Callable[[], datetime] = clock.now
    ) -> None:
        self._pool = pool
        self._secrets = secrets
        self._now = now
        self._refused = 0  # since the last line of the log
        self._logged_at: float | None = None

    def signature(self, header: str | None) -> Signature:
        """What the header says. Raises the problem of one that is not to be believed."""
        if not self._secrets:
            raise Problem(Kind.NOT_FOUND, "STRIPE_WEBHOOK_SECRET is not set: nothing is taken here")
        try:
            return stripe_signature.read(header, self._now())
        except BadSignature as error:
            raise self._problem(error) from None

    async def receive(self, signature: Signature, body: bytes) -> bytes:
        """Keeps the event, if it is not kept already; a second time changes nothing."""
        try:
            stripe_signature.check(signature, body, [one.reveal() for one in self._secrets])
        except BadSignature as error:
            raise self._problem(error) from None
        try:
            event = stripe_event.parse(body)
        except NoEvent:
            raise Problem(Kind.INVALID_REQUEST, "the body is not an event of Stripe's") from None
        if event is not None:
            try:
                await store.stripe_events.insert(self._pool, event, self._now())
            except db.UNAVAILABLE:
                raise unavailable("Postgres does not answer; tell it again") from None
        return encoder.encode(Received(received=True, kept=event is not None))

    def _problem(self, error: BadSignature) -> Problem:
        metrics.WEBHOOKS_REFUSED.labels(error.why).inc()
        self._refused += 1
        now = clock.monotonic()
        if self._logged_at is None or now - self._logged_at >= LOG_EVERY_S:
            log.warning("webhook_refused", reason=error.why, refused=self._refused)
            self._refused, self._logged_at = 0, now
        return Problem(Kind.INVALID_REQUEST, f"Stripe-Signature: {error.why}")
