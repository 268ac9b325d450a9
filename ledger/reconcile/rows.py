"""The rows of a partition among themselves: ids, limits, counters, seals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ledger import store
from ledger.audit import verify
from ledger.audit.findings import Finding as Broken
from ledger.db import Connection, Executor
from ledger.domain.audit import CONTROL
from ledger.reconcile.findings import Finding, Report
from ledger.store.audit import ControlHead
from lua import keys

EVENTS = 5000  # audit events at one look: a fraction of a second
MOST = 100  # findings of a kind that are told one by one: a broken partition has as many as rows


async def check(db: Executor, partition: int, after: int, through: int) -> Report:
    """Compares the rows at positions after one and up to another."""
    findings: list[Finding] = []
    for invariant, query, words in (
        ("I2", "unclaimed_records", _unclaimed),
        ("I4", "passed_limits", _passed),
        ("I5", "counter_gaps", _gap),
        ("I9", "broken_seals", _seal),
        ("I9", "unsealed_records", _unsealed),
    ):
        found = await store.rows_at_fault(db, query, partition, after, through)
        findings += told(invariant, [words(row) for row in found], partition)
    rows = await store.count_records(db, partition, after, through)
    return Report({"I2": rows, "I4": rows, "I5": rows, "I9": rows}, findings, [])


async def check_whole(db: Executor, partition: int) -> Report:
    """What only a look at everything can tell: units that were claimed and are no rows, and seals
    that were left with fewer than a purge left them."""
    lost = await store.recordless_keys(db, partition)
    whats = [f"usage id {one} counts, but is no row" for one in lost]
    wrong = await store.wrong_purged(db, partition)
    gone = [] if wrong is None else [f"{wrong[0]} records are gone from seals, {wrong[1]} purged"]
    return Report({}, told("I2", whats, partition) + told("I9", gone, partition), [])


async def check_totals(db: Executor) -> Report:
    """Running totals against the sums of all rows."""
    wrong = await store.wrong_totals(db)
    return Report({}, bounded([total_finding(one) for one in wrong]), [])


async def check_billable(db: Executor) -> Report:
    """What is to be invoiced against the sums of all rows."""
    wrong = await store.billable.wrong(db)
    findings = [
        Finding("I6", billable_words(one), one.partition, subscription_id=one.subscription_id)
        for one in wrong
    ]
    return Report({"I6": await store.billable.count(db)}, bounded(findings), [])


async def check_chains(connection: Connection) -> Report:
    """Every link of every hash chain: what was edited, or is gone, since it was sealed."""
    report = await verify.whole(connection)
    events = sum(one.rows for one in report.chains if one.chain == CONTROL)  # records are counted
    return Report({"I9": events}, [_broken(one) for one in report.findings], [])


class NewEvents:
    """The chain of audit events from look to look: each goes on from where the last one found it
    whole. The first begins a little before the head: what is older, `check_chains` looks at."""

    def __init__(self) -> None:
        self._whole: ControlHead | None = None

    async def check(self, connection: Connection) -> Report:
        begin = self._whole
        # A ledger goes on over a database that was brought back to an earlier instant.
        if begin is None or await store.audit.hash_at(connection, begin.sequence) != begin.head:
            begin = await verify.before_newest(connection, EVENTS)
        checked = await verify.events_after(connection, begin, EVENTS)
        findings = checked.findings.all
        self._whole = ControlHead(checked.at, checked.head)
        return Report({"I9": checked.rows}, [_broken(one) for one in findings], [])


def _broken(one: Broken) -> Finding:
    return Finding("I9", one.said)


async def wrong_totals_of(db: Executor, subjects: Iterable[str]) -> list[store.WrongTotal]:
    """Those of some subjects: before a counter is made anew from them."""
    found: list[store.WrongTotal] = []
    for subject in subjects:
        ids = keys.ids_of(keys.subject_of(subject))
        found += await store.wrong_totals_of(db, subject, *ids)
    return found


def total_words(one: store.WrongTotal) -> str:
    return (
        f"{one.subject} {one.usage_type} since {one.quota_period:%Y-%m-%d}: "
        f"the total says {one.found.normalize():f}, the rows {one.expected.normalize():f}"
    )


def billable_words(one: store.billable.WrongBillable) -> str:
    return (
        f"subscription {one.subscription_id}, {one.usage_type} of {one.billing_period} on "
        f"{one.plan_tier} version {one.plan_version}: {one.found.normalize():f} are to be "
        f"invoiced, the rows say {one.expected.normalize():f}"
    )


def total_finding(one: store.WrongTotal) -> Finding:
    return Finding("I3", total_words(one), subject=one.subject)


def told(invariant: str, whats: list[str], partition: int) -> list[Finding]:
    return bounded([Finding(invariant, what, partition) for what in whats])


def bounded(findings: list[Finding]) -> list[Finding]:
    """Findings of one kind, the first of them one by one."""
    if len(findings) <= MOST:
        return findings
    more = f"and {len(findings) - MOST} more of these"
    return [*findings[:MOST], Finding(findings[0].invariant, more, findings[0].partition)]


def _unclaimed(row: dict[str, Any]) -> str:
    return f"row {row['position']} (usage id {row['usage_id']}) is not the one that was claimed"


def _passed(row: dict[str, Any]) -> str:
    return (
        f"row {row['position']} (usage id {row['usage_id']}) passed the {row['scope']}'s "
        f"{row['usage_type']} limit of {row['limit']}"
    )


def _gap(row: dict[str, Any]) -> str:
    return (
        f"{row['subject']} {row['usage_type']}: before row {row['position']} the counter said "
        f"{row['found'].normalize():f}, after the row before it {row['before'].normalize():f}"
    )


def _seal(row: dict[str, Any]) -> str:
    return f"the seal that ends at row {row['last_position']} {row['wrong']}"


def _unsealed(row: dict[str, Any]) -> str:
    return f"row {row['position']} (usage id {row['usage_id']}) is covered by no seal"
