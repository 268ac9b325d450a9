"""Does everything agree? Asked of a partition all the time, and of everything by `./run reconcile`.

Rows are never repaired, only told of. A counter that does not agree is a copy, and is made anew
from the ledger: audited first, then unloaded, so that the next request loads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from uuid import UUID

import msgspec
import structlog

from ledger import clock, store
from ledger.db import Connection
from ledger.reconcile import rows
from ledger.reconcile.counters import Counters, Difference, NotCompared
from ledger.reconcile.findings import Finding, Report, merged
from ledger.reconcile.invoices import check_invoices
from ledger.reconcile.scan import QuotaScan, Servers
from lua import keys
from lua.connection import RedisUnavailable
from lua.keys import Account
from lua.scripts import Scripts
from lua.types import Fenced

log = structlog.get_logger()

EVERY_S = 15  # a partition: a drift is known within a minute even when its worker dies
ROWS = 50_000  # compared at most at one look: well within a statement's ten seconds
OVERDUE_S = 300  # twenty looks: an outage that is over, or a ledger that lags, is no news
NOTED = 1000  # findings kept of a partition: a broken one has as many as rows
STEPS = 10  # of the scan, for each partition: quotas besides those that were used
_findings = msgspec.json.Decoder(list[Finding])


class Reconciler:
    def __init__(
        self, connection: Connection, redis: Servers, scripts: Scripts, *, repair: bool
    ) -> None:
        self._connection = connection
        self._scripts = scripts
        self._counters = Counters(connection, scripts)
        self._scan = QuotaScan(redis)
        self._events = rows.NewEvents()
        self._repair = repair

    async def run_once(self, partitions: Iterable[int]) -> Report:
        """What was drained since the last time, the quotas that it touched, and some of the
        others; of every partition that nobody has looked at lately."""
        reports = []
        for partition in partitions:
            look = await store.claim_reconcile(self._connection, partition, EVERY_S)
            if look is None:
                continue
            for _ in range(STEPS):
                if await self._scan.step():
                    break
            reports.append(await self._latest(look))
        return merged(reports)

    async def whole(self, partitions: int) -> Report:
        """Every row and every quota. Takes as long as reading all of them."""
        reports, through, skipped = [], {}, set()
        while not await self._scan.step():
            pass
        for partition in range(partitions):
            through[partition] = (await store.cursor(self._connection, partition)).position
            reports.append(await rows.check(self._connection, partition, 0, through[partition]))
            reports.append(await rows.check_whole(self._connection, partition))
            subjects = sorted(self._scan.take(partition))
            reports.append(await self._compared(partition, subjects))
            if reports[-1].skipped:
                skipped.add(partition)
        reports.append(await rows.check_totals(self._connection))
        reports.append(await rows.check_billable(self._connection))
        reports.append(await check_invoices(self._connection))
        reports.append(await rows.check_chains(self._connection))
        report = merged(reports)
        for partition, position in through.items():
            found = [one for one in report.findings if _place(one, partitions) == partition]
            # Claimed only now: looks that began meanwhile have not seen all that this one has.
            look = await store.claim_reconcile(self._connection, partition, None)
            await self._note(look, position, found, completed=partition not in skipped)
        return report

    async def _latest(self, look: store.Look) -> Report:
        partition, noted = look.partition, _findings.decode(look.findings)
        newest = (await store.cursor(self._connection, partition)).position
        through = min(newest, look.position + ROWS)
        checked = await rows.check(self._connection, partition, look.position, through)
        touched = await store.touched_accounts(self._connection, partition, look.position, through)
        subjects = _subjects(touched) | self._scan.take(partition)
        subjects |= {one.subject for one in noted if one.subject}
        compared = await self._compared(partition, sorted(subjects))
        reports = [checked, compared]
        if partition == 0:  # there is one chain of events for all partitions
            reports.append(await self._events.check(self._connection))
        report = merged(reports)
        for one in report.findings:
            log.error("reconcile_found", **msgspec.structs.asdict(one))
        again = {one.subject for one in report.findings if one.subject}
        # Rows and totals do not mend by themselves: told of until they are known to be mended.
        standing = [
            one
            for one in noted
            if one.subject not in again and (compared.skipped or not one.is_counter)
        ]
        found = list(dict.fromkeys([*standing, *report.findings]))
        await self._note(look, through, found, completed=not compared.skipped)
        return report

    async def _note(
        self, look: store.Look | None, position: int, found: list[Finding], *, completed: bool
    ) -> None:
        if look is not None:
            kept = found[:NOTED]
            await store.note_reconcile(self._connection, look, position, kept, completed=completed)

    async def _compared(self, partition: int, subjects: Sequence[str]) -> Report:
        compared, findings, skipped = 0, [], []
        try:
            async for count, differences in self._counters.compare(partition, subjects):
                compared += count
                findings += await self._found(partition, differences)
        except NotCompared as error:
            skipped.append(f"partition {partition}: {error}")
        except Fenced:
            skipped.append(f"partition {partition}: Redis has not been vouched for")
        except RedisUnavailable as error:  # on a cluster the other partitions may well go on
            skipped.append(f"partition {partition}: {error}")
        return Report({"I3": compared}, findings, skipped)

    async def _found(self, partition: int, differences: Sequence[Difference]) -> list[Finding]:
        """Repairs what may be repaired: not from totals that are wrong themselves."""
        if not differences:
            return []
        subjects = {one.subject for one in differences}
        wrong = await rows.wrong_totals_of(self._connection, sorted(subjects))
        subjects -= {one.subject for one in wrong}
        mended = [one for one in differences if one.subject in subjects]
        if mended and self._repair:
            await self._mend(partition, mended)
        return [rows.total_finding(one) for one in wrong] + [
            Finding(
                "I3", one.what, partition, self._repair and one.subject in subjects, one.subject
            )
            for one in differences
        ]

    async def _mend(self, partition: int, differences: Sequence[Difference]) -> None:
        details = {"partition": partition, "differences": [one.what for one in differences]}
        await store.insert_audit_event(
            self._connection, "quota_repaired", "reconcile", details, clock.now()
        )
        cursor = await store.cursor(self._connection, partition)
        subjects = sorted({one.subject for one in differences})
        await self._scripts.unload(partition, subjects, revision=cursor.revision)


def _place(finding: Finding, partitions: int) -> int:
    """The partition that a finding is noted under: a total's is that of its subject."""
    if finding.partition is not None:
        return finding.partition
    try:
        return keys.partition_of(keys.subject_of(finding.subject or ""), partitions)
    except ValueError:  # no subject of ours, or the line that there are more
        return 0


def _subjects(accounts: Iterable[tuple[UUID, UUID | None]]) -> set[str]:
    subjects = (keys.subjects_of(Account(*ids).who) for ids in accounts)
    return {keys.subject_text(one) for one in chain.from_iterable(subjects)}
