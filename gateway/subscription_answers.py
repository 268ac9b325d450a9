"""Subscriptions and lines as callers see them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from gateway.messages import PeriodAnswer
from gateway.subscription_messages import (
    HistoryEntry,
    LineAnswer,
    PendingChangeAnswer,
    PreviewAnswer,
    SubscriptionAnswer,
)
from ledger.domain.line import Line
from ledger.domain.money import amount_text
from ledger.domain.period import Span
from ledger.domain.rating import plain
from ledger.domain.subscription import PendingChange, fall_due
from ledger.store.subscriptions import Change, Subscription
from ledger.subscriptions import Outcome


def shown(one: Subscription, now: datetime) -> SubscriptionAnswer:
    """As it is at `now`, whether or not what is due has been noted."""
    life = fall_due(one.life, now)
    return SubscriptionAnswer(
        subscription_id=one.subscription_id,
        user_id=one.user_id,
        organization_id=one.organization_id,
        scope=one.scope,
        plan_tier=life.plan_tier,
        plan_version=life.plan_version,
        overridden=one.is_own(life.plan_tier, life.plan_version),
        status=life.status,
        current_period=period(life.period(now)),
        trial_end=life.trial_end,
        cancel_at=life.cancel_at,
        pending_change=pending(life.pending_change),
        created_at=one.created_at,
        updated_at=one.updated_at,
    )


def preview(outcome: Outcome, now: datetime) -> PreviewAnswer:
    total = sum((line.amount for line in outcome.lines), Decimal(0))
    return PreviewAnswer(
        preview=True,
        subscription=shown(outcome.subscription, now),
        currency=outcome.currency,
        lines=[line_shown(line, outcome.currency) for line in outcome.lines],
        total=amount_text(total, outcome.currency),
    )


def line_shown(line: Line, currency: str) -> LineAnswer:
    return LineAnswer(
        kind=line.kind,
        usage_type=line.usage_type,
        description=line.description,
        quantity=None if line.quantity is None else plain(line.quantity),
        unit_amount=None if line.unit_amount is None else plain(line.unit_amount),
        amount=amount_text(line.amount, currency),
        period=None if line.span is None else period(line.span),
    )


def entry(change: Change) -> HistoryEntry:
    return HistoryEntry(
        version=change.version,
        action=change.action,
        actor=change.actor,
        occurred_at=change.occurred_at,
        effective_at=change.effective_at,
        status=change.status,
        plan_tier=change.plan_tier,
        plan_version=change.plan_version,
        trial_end=change.trial_end,
        cancel_at=change.cancel_at,
        pending_change=pending(change.pending_change),
    )


def pending(change: PendingChange | None) -> PendingChangeAnswer | None:
    if change is None:
        return None
    return PendingChangeAnswer(
        plan_tier=change.plan_tier, plan_version=change.plan_version, at=change.at
    )


def period(span: Span) -> PeriodAnswer:
    return PeriodAnswer(start=span.start, end=span.end)
