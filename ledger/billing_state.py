"""How invoicing is going: what operators are told of it, in metrics, readiness and `doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal

import msgspec

from ledger import store
from ledger.db import Executor
from ledger.store.billing_state import Failures
from ledger.store.outbox import Overdue
from ledger.store.stripe_events import Waiting
from ledger.store.stripe_looks import OverdueLooks
from ledger.store.stripe_reconcile import ReconcileState
from ledger.store.stripe_state import StripeState
from ledger.supersede import OVERDUE_S

# Longer than a hundred thousand calls take, and than the longest wait between two tries.
UNDELIVERED_S = 6 * 3600
UNCOMPARED_S = 2 * 86400  # once a day it is done, and a day is left for what Stripe did not answer
UNSEEN_S = 900  # in which a payment that failed is to be seen to


class Billing(msgspec.Struct, frozen=True):
    """`issued`: the totals of all invoices by currency. `waiting`: changes that have not reached
    every quota. `stripe`: delivery to Stripe; `outcomes`: how its tries ended. `payments`: what
    became of payments, ever; `owed`: invoices in dunning by step; `told`: what Stripe has told and
    nobody has seen to; `unlooked`: open invoices that Stripe was to be asked about;
    `beside_stripe`: how invoices agree with Stripe's, None where no ledger has a key."""

    issued: Mapping[str, Decimal]
    parked: int
    failures: Failures
    waiting: Overdue
    stripe: StripeState
    outcomes: Mapping[str, int]
    payments: Mapping[str, int]
    owed: Mapping[str, int]
    told: Waiting
    unlooked: OverdueLooks
    beside_stripe: ReconcileState | None

    def reasons(self) -> Iterator[str]:
        """What needs a person."""
        if self.parked:
            yield f"invoices are parked: {self.parked}; GET /invoices?status=draft lists them"
        if self.failures.subscriptions:
            kinds = ", ".join(self.failures.reasons)
            yield f"subscriptions cannot be billed: {self.failures.subscriptions} ({kinds})"
        if self.waiting.oldest_s > OVERDUE_S:
            why = f" ({self.waiting.reason})" if self.waiting.reason else ""
            minutes = self.waiting.oldest_s // 60
            yield f"changes of terms wait to be drained for {minutes} minutes{why}"
        yield from self._of_stripe()

    def _of_stripe(self) -> Iterator[str]:
        if self.stripe.is_stopped:
            yield "Stripe refuses the API key: nothing is sent until STRIPE_API_KEY is mended"
        if self.stripe.parked:
            calls = self.stripe.parked
            yield f"calls to Stripe are parked: {calls}; ./run stripe parked lists them"
        # Where nobody delivers, and nobody ever did, nothing is late.
        if self.outcomes and self.stripe.oldest_s > UNDELIVERED_S:
            hours = self.stripe.oldest_s // 3600
            waiting = self.stripe.waiting
            yield f"invoices or usage wait to be sent to Stripe for {hours} hours: {waiting}"
        if self.told.oldest_s > UNSEEN_S:
            minutes = self.told.oldest_s // 60
            yield f"events of Stripe wait for {minutes} minutes: {self.told.waiting}"
        if self.unlooked.oldest_s > UNDELIVERED_S:
            hours = self.unlooked.oldest_s // 3600
            invoices = self.unlooked.invoices
            yield f"Stripe was not heard about open invoices for {hours} hours: {invoices}"
        if self.beside_stripe is not None:
            yield from _beside_stripe(self.beside_stripe)


def _beside_stripe(state: ReconcileState) -> Iterator[str]:
    found = {kind: count for kind, count in state.findings.items() if count}
    if found:
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.items())
        yield f"invoices do not agree with Stripe: {kinds}; ./run reconcile stripe lists them"
    if state.age_s > UNCOMPARED_S:
        days = state.age_s // 86400
        yield f"invoices have not been compared with Stripe for {days} days: the log says why"


async def look(db: Executor) -> Billing:
    """As the ledger has it now."""
    return Billing(
        await store.billing_state.issued_totals(db),
        await store.billing_state.count_parked(db),
        await store.billing_state.failures(db),
        await store.outbox.overdue(db, 0),
        await store.stripe_state.look(db),
        await store.stripe_state.outcomes(db),
        await store.payments.outcomes(db),
        await store.payments.owed_by_step(db),
        await store.stripe_events.state(db),
        await store.stripe_looks.overdue(db),
        await store.stripe_reconcile.state(db),
    )
