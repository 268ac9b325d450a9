"""Every metric of the gateway. No label ever holds a user, an organisation or a key."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from ledger.domain.dunning import SCHEDULE
from ledger.domain.durability import Profile, Verdict
from lua.types import Outcome

if TYPE_CHECKING:  # the hot path counts too, and knows nothing of Postgres
    from ledger.audit.state import Audit
    from ledger.billing_state import Billing

USAGE = Counter("billing_usage", "Usage recorded, in whole quantities", ["usage_type"])
EXCEEDED = Counter(
    "billing_quota_exceeded", "Usage refused by a quota or rate window", ["usage_type", "reason"]
)
# Set from the ledger's own sum, so that a restart does not begin at 0; a Counter cannot be set.
REVENUE = Gauge(
    "billing_revenue_total",
    "Totals of all invoices that were issued, in whole units of the currency",
    ["currency"],
    multiprocess_mode="mostrecent",
)
REFUSED = Counter("billing_usage_refused", "Usage refused for another reason", ["outcome"])
RESPONSE_TIME = Histogram(
    "billing_response_time_seconds",
    "Time to answer",
    ["route", "status"],
    buckets=(0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
LAG = Gauge(
    "billing_ledger_lag_entries",
    "Entries that the ledger has not drained yet",
    multiprocess_mode="mostrecent",
)
BACKLOG = Gauge(
    "billing_backlog_ratio",
    "Undrained entries of the fullest partition, of the cap at which usage is refused",
    multiprocess_mode="mostrecent",
)
FINDINGS = Gauge(
    "billing_reconcile_findings",
    "What the ledger found not to agree when it last compared each partition",
    ["invariant"],
    multiprocess_mode="mostrecent",
)
RECONCILE_AGE = Gauge(
    "billing_reconcile_age_seconds",
    "Time since the partition that was not compared for longest was",
    multiprocess_mode="mostrecent",
)
DEAD_LETTERS = Gauge(
    "billing_dead_letters",
    "Entries that could not be written and wait for a person",
    multiprocess_mode="mostrecent",
)
PARKED = Gauge(
    "billing_invoices_parked",
    "Invoices that wait for a person before they are issued",
    multiprocess_mode="mostrecent",
)
NOT_BILLED = Gauge(
    "billing_subscriptions_not_billed",
    "Subscriptions whose last attempt to close a period or to invoice it failed",
    multiprocess_mode="mostrecent",
)
OUTBOX_AGE = Gauge(
    "billing_outbox_age_seconds",
    "How long the oldest change that has not reached every quota has waited",
    multiprocess_mode="mostrecent",
)
# Set from the ledger's own count, as the revenue is.
STRIPE_CALLS = Gauge(
    "billing_stripe_calls_total",
    "Tries of calls to Stripe, by how they ended",
    ["outcome"],
    multiprocess_mode="mostrecent",
)
STRIPE_WAITING = Gauge(
    "billing_stripe_waiting",
    "Invoices and meter events that are not in Stripe yet as they are here",
    multiprocess_mode="mostrecent",
)
STRIPE_AGE = Gauge(
    "billing_stripe_oldest_seconds",
    "How long the oldest of them has waited",
    multiprocess_mode="mostrecent",
)
STRIPE_PARKED = Gauge(
    "billing_stripe_parked",
    "Calls to Stripe that wait for a person",
    multiprocess_mode="mostrecent",
)
STRIPE_STOPPED = Gauge(
    "billing_stripe_stopped",
    "1 while Stripe refuses the API key",
    multiprocess_mode="mostrecent",
)
PAYMENTS = Gauge(
    "billing_payments_total",
    "What Stripe said of payments and invoices: failed, paid, void, uncollectible, contradicts",
    ["outcome"],
    multiprocess_mode="mostrecent",
)
OWED = Gauge(
    "billing_invoices_owed",
    "Invoices whose payment failed or is overdue, by the step of dunning they are at",
    ["step"],
    multiprocess_mode="mostrecent",
)
EVENTS_AGE = Gauge(
    "billing_stripe_events_oldest_seconds",
    "How long the oldest event of Stripe has waited to be seen to",
    multiprocess_mode="mostrecent",
)
LOOKS_AGE = Gauge(
    "billing_stripe_looks_oldest_seconds",
    "How long ago Stripe was to be asked about an open invoice, and did not answer",
    multiprocess_mode="mostrecent",
)
BESIDE_STRIPE = Gauge(
    "billing_stripe_reconcile_findings",
    "What did not agree when invoices were last compared with Stripe's",
    ["kind"],
    multiprocess_mode="mostrecent",
)
BESIDE_STRIPE_AGE = Gauge(
    "billing_stripe_reconcile_age_seconds",
    "How long ago invoices were last compared with Stripe's to the end",
    multiprocess_mode="mostrecent",
)
MISSED = Gauge(
    "billing_stripe_webhooks_missed_total",
    "What Stripe has told, was never received, and was found by comparing",
    multiprocess_mode="mostrecent",
)
WEBHOOKS_REFUSED = Counter(
    "billing_stripe_webhooks_refused", "Events that were not signed by Stripe just now", ["reason"]
)
TOKENS_REFUSED = Counter(
    "billing_tokens_refused",
    "Tokens that were not good, and those that were not looked at for there were too many",
    ["reason"],
)
AUTH_ASKED = Counter(
    "billing_auth_service_answers",
    "What the auth service was asked for, and whether it gave an answer that can be used",
    ["asked_for", "outcome"],
)
AUDIT_UNSEALED = Gauge(
    "billing_audit_unsealed",
    "Audit events that have no place in the chain yet",
    multiprocess_mode="mostrecent",
)
AUDIT_UNSEALED_AGE = Gauge(
    "billing_audit_unsealed_seconds",
    "How long the oldest of them has waited",
    multiprocess_mode="mostrecent",
)
AUDIT_SEQUENCE = Gauge(
    "billing_audit_sequence",
    "How long the chain of audit events is; it never gets shorter",
    multiprocess_mode="mostrecent",
)
AUDIT_UNDELIVERED = Gauge(
    "billing_audit_undelivered",
    "Audit events, usage included, that the audit service does not have yet",
    multiprocess_mode="mostrecent",
)
AUDIT_FAILING = Gauge(
    "billing_audit_delivery_failing_seconds",
    "How long the audit service has taken nothing of some chain",
    multiprocess_mode="mostrecent",
)
DURABILITY = Gauge(
    "billing_durability_in_force",
    "1 at the durability profile that Redis keeps, 0 at the others",
    ["profile"],
    multiprocess_mode="mostrecent",
)
WEAKNESSES = Gauge(
    "billing_durability_weaknesses",
    "What keeps Redis from the durability that is set, or needs care",
    multiprocess_mode="mostrecent",
)


_POWERS = tuple(10**places for places in range(7))


@cache
def _usage(usage_type: str) -> Counter:
    return USAGE.labels(usage_type)


def recorded(usage_type: str, units: int, places: int) -> None:
    # Prometheus counts in doubles; the exact figure is the ledger's.
    _usage(usage_type).inc(units / _POWERS[places])


def refused(usage_type: str, outcome: Outcome) -> None:
    if outcome in (Outcome.DENIED, Outcome.RATE_LIMITED):
        EXCEEDED.labels(usage_type, outcome.name.lower()).inc()
    else:
        REFUSED.labels(outcome.name.lower()).inc()


@cache
def _response_time(route: str, status: int) -> Histogram:
    return RESPONSE_TIME.labels(route, status)


def answered(route: str, status: int, seconds: float) -> None:
    _response_time(route, status).observe(seconds)


def judged(verdict: Verdict | None) -> None:
    """What Redis is worth; None when it does not answer."""
    in_force = Profile.UNKNOWN if verdict is None else verdict.in_force
    for profile in Profile:
        DURABILITY.labels(profile.label).set(profile is in_force)
    if verdict is not None:
        WEAKNESSES.set(len(verdict.reasons))


def billed(billing: Billing) -> None:
    """What the ledger says of invoices."""
    for currency, total in billing.issued.items():
        # Prometheus counts in doubles; the exact figure is the ledger's.
        REVENUE.labels(currency).set(float(total))
    PARKED.set(billing.parked)
    NOT_BILLED.set(billing.failures.subscriptions)
    OUTBOX_AGE.set(billing.waiting.oldest_s)
    for outcome, calls in billing.outcomes.items():
        STRIPE_CALLS.labels(outcome).set(calls)
    STRIPE_WAITING.set(billing.stripe.waiting)
    STRIPE_AGE.set(billing.stripe.oldest_s)
    STRIPE_PARKED.set(billing.stripe.parked)
    STRIPE_STOPPED.set(billing.stripe.is_stopped)
    for outcome, payments in billing.payments.items():
        PAYMENTS.labels(outcome).set(payments)
    for _, step in SCHEDULE:
        OWED.labels(step).set(billing.owed.get(step, 0))
    EVENTS_AGE.set(billing.told.oldest_s)
    LOOKS_AGE.set(billing.unlooked.oldest_s)
    if (beside := billing.beside_stripe) is not None:
        for kind, found in beside.findings.items():
            BESIDE_STRIPE.labels(kind).set(found)
        BESIDE_STRIPE_AGE.set(beside.age_s)
        MISSED.set(beside.missed_ever)


def evidenced(audit: Audit) -> None:
    """What the ledger says of the audit trail."""
    AUDIT_UNSEALED.set(audit.sealing.unsealed)
    AUDIT_UNSEALED_AGE.set(audit.sealing.oldest_s)
    AUDIT_SEQUENCE.set(audit.sealing.sequence)
    AUDIT_UNDELIVERED.set(audit.delivered.waiting)
    AUDIT_FAILING.set(audit.delivered.failing_s)


def exposition() -> bytes:
    """What /metrics answers: of all worker processes together when there are several."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
