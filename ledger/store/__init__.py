"""One typed function per named query of ``ledger/sql``; nothing else sends SQL to the ledger.

A module here stands beside the ``.sql`` file of its name.
"""

from ledger.store.catalogue import (
    PlanVersion,
    insert_first_plan,
    insert_usage_type,
    newest_plan,
    usage_types,
)
from ledger.store.cursor import (
    Cursor,
    Lease,
    advance_cursor,
    clock_offset,
    count_cursors,
    cursor,
    cursors,
    ensure_cursors,
    hold_cursor,
    lease_cursor,
    settle,
    skip_gap,
    vouch,
)
from ledger.store.dead_letters import (
    DeadLetter,
    close_dead_letter,
    count_open_dead_letters,
    dead_letter,
    dead_letters,
    explain_dead_letter,
)
from ledger.store.drain import (
    KnownKey,
    add_totals,
    claim_keys,
    ensure_usage_month,
    insert_audit_event,
    insert_dead_letter,
    insert_records,
    insert_refunds,
    insert_seal,
    known_keys,
)
from ledger.store.queries import QUERIES
from ledger.store.quota import (
    Subscription,
    live_subscriptions,
    organization_of_user,
    terms_version,
    totals,
)
from ledger.store.usage import (
    PastAnswer,
    answers,
    list_usage,
    usage_position,
)

__all__ = [
    "QUERIES",
    "Cursor",
    "DeadLetter",
    "KnownKey",
    "Lease",
    "PastAnswer",
    "PlanVersion",
    "Subscription",
    "add_totals",
    "advance_cursor",
    "answers",
    "claim_keys",
    "clock_offset",
    "close_dead_letter",
    "count_cursors",
    "count_open_dead_letters",
    "cursor",
    "cursors",
    "dead_letter",
    "dead_letters",
    "ensure_cursors",
    "ensure_usage_month",
    "explain_dead_letter",
    "hold_cursor",
    "insert_audit_event",
    "insert_dead_letter",
    "insert_first_plan",
    "insert_records",
    "insert_refunds",
    "insert_seal",
    "insert_usage_type",
    "known_keys",
    "lease_cursor",
    "list_usage",
    "live_subscriptions",
    "newest_plan",
    "organization_of_user",
    "settle",
    "skip_gap",
    "terms_version",
    "totals",
    "usage_position",
    "usage_types",
    "vouch",
]
