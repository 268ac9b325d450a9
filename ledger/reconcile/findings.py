"""What a reconciliation says: each thing that does not agree, and how much was compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from uuid import UUID

import msgspec

INVARIANTS: Mapping[str, str] = {
    "I2": "every usage id is one row",
    "I3": "Redis and the totals count what the rows say",
    "I4": "no hard limit was passed",
    "I5": "counters go on from record to record",
    "I6": "what is invoiced is what the rows say",
    "I7": "every record is on one line of one invoice",
    "I9": "the audit chains are as they were sealed",
}


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One disagreement. `subject`: whose counter or total it is; `subscription_id`: to whom it
    would be invoiced. `partition` None: a total, of which the ledger has one whatever its
    partitions are."""

    invariant: str
    what: str
    partition: int | None = None
    repaired: bool = False
    subject: str | None = None
    subscription_id: UUID | None = None

    @property
    def is_counter(self) -> bool:
        """Whether it is of a counter in Redis, which is a copy and may be right by now."""
        return self.subject is not None and self.partition is not None


class Report(msgspec.Struct, frozen=True):
    """`compared`: rows and counters by invariant. `skipped`: what could not be, and why."""

    compared: Mapping[str, int]
    findings: list[Finding]
    skipped: list[str]


def merged(reports: Iterable[Report]) -> Report:
    compared: Counter[str] = Counter({name: 0 for name in INVARIANTS})
    findings: list[Finding] = []
    skipped: list[str] = []
    for one in reports:
        compared.update(one.compared)
        findings += one.findings
        skipped += one.skipped
    return Report(dict(compared), list(dict.fromkeys(findings)), skipped)  # each told once


def text(report: Report, invariants: Iterable[str] = INVARIANTS) -> str:
    """For people: a line per invariant, and below it what does not agree."""
    lines = []
    for name in invariants:
        meaning = INVARIANTS[name]
        found = [one for one in report.findings if one.invariant == name]
        compared = report.compared.get(name, 0)
        verdict = f"{len(found)} found" if found else "holds" if compared else "nothing to compare"
        lines.append(f"{name}  {meaning:48} {verdict:18} {compared:,} compared")
        for one in found:
            place = "" if one.partition is None else f"partition {one.partition}: "
            lines.append(f"    {place}{one.what}{' (repaired)' if one.repaired else ''}")
    lines += [f"not compared: {reason}" for reason in report.skipped]
    return "\n".join(lines)
