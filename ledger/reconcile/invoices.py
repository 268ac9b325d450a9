"""Invoices: among themselves, and that everything used is on exactly one line of one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ledger import store
from ledger.db import Executor
from ledger.reconcile.findings import Finding, Report
from ledger.reconcile.rows import bounded
from ledger.store.invoice_checks import Check

Row = dict[str, Any]


async def check_invoices(db: Executor) -> Report:
    """Every invoice, each comparison as of one instant. Rows are only read where lines disagree."""
    findings: list[Finding] = []
    for invariant, check, words in _CHECKS:
        found = await store.invoice_checks.at_fault(db, check)
        findings += bounded([Finding(invariant, words(row)) for row in found])
    compared = {
        "I6": await store.invoice_checks.count(db),
        "I7": await store.invoice_checks.count_line_usage(db),
    }
    return Report(compared, findings, [])


def _sum(row: Row) -> str:
    return (
        f"invoice {row['invoice_id']}: its lines come to {row['of_lines']:.2f}, before credit to "
        f"{row['before_credit']:.2f}; it says {row['total']:.2f} and {row['subtotal']:.2f}"
    )


def _number(row: Row) -> str:
    if row["missing"]:
        return f"no invoice has the number {row['number']}"
    return f"invoice number {row['number']} was never given out"


def _period(row: Row) -> str:
    return (
        f"invoice {row['invoice_id']}: {row['billing_period']} of subscription "
        f"{row['subscription_id']} would be invoiced again"
    )


def _billed(row: Row) -> str:
    return (
        f"{_usage(row)} on {row['plan_tier']} version {row['plan_version']}: "
        f"{_plain(row, 'on_lines')} are on lines, {_plain(row, 'billed')} are noted as invoiced "
        f"(of {_plain(row, 'measured')} measured; used are {_plain(row, 'used')})"
    )


def _misplaced(row: Row) -> str:
    place = f"{row['records']} records of partition {row['partition']}"
    return f"{_usage(row)}: {place} are {row['wrong']}"


def _never(row: Row) -> str:
    return (
        f"{_usage(row)}: {_plain(row, 'quantity')} ({row['records']} records) will be on no "
        "invoice: it has ended, and its last invoice is made"
    )


def _usage(row: Row) -> str:
    return f"subscription {row['subscription_id']}, {row['usage_type']} of {row['billing_period']}"


def _plain(row: Row, name: str) -> str:
    return f"{row[name].normalize():f}"


_CHECKS: tuple[tuple[str, Check, Callable[[Row], str]], ...] = (
    ("I6", "wrong_sums", _sum),
    ("I6", "wrong_numbers", _number),
    ("I6", "open_periods", _period),
    ("I6", "wrong_billed", _billed),
    ("I7", "misplaced_records", _misplaced),
    ("I7", "never_invoiced", _never),
)
