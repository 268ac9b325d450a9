"""Looks at chains as they are in the database: all of each, or the newest part.

Memory is a page of rows, whatever there is. Each chain is read in one snapshot, so that what is
written meanwhile is no finding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ledger import store
from ledger.audit import events, records
from ledger.audit.events import Checked
from ledger.audit.findings import MOST, Finding
from ledger.audit.heads import SignedHeads
from ledger.db import Connection
from ledger.domain.audit import CONTROL, instant
from ledger.domain.audit import FIRST_HEAD as FIRST_EVENT
from ledger.domain.seal import FIRST_HEAD as FIRST_SEAL
from ledger.domain.seal import chain_of
from ledger.store.audit import ControlHead
from ledger.store.seals import Head

SMALL_PAGE = 200  # rows at once where others wait for the same processor: a few milliseconds


class Chain(msgspec.Struct, frozen=True):
    """How much of a chain was looked at: its places from one to another; `rows` of them were there,
    `hash` is its last."""

    chain: str
    checked_from: int
    checked_through: int
    rows: int
    hash: str


class Report(msgspec.Struct, frozen=True):
    chains: list[Chain]
    findings: list[Finding]

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.chains)


class Broken(Exception):
    """The chains are not whole; the message names the first place."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.said)


async def whole(connection: Connection, signed: SignedHeads | None = None) -> Report:
    """Every link of every chain; and, given heads that were signed, whether these are chains that
    went on from there."""
    checked = [await control(connection)]
    for partition in await store.seals.usage_heads(connection):
        checked.append(await usage(connection, partition))
    findings = [finding for one in checked for finding in one.findings.all]
    findings += await _strays(connection)
    if signed is not None:
        findings += await _compared(connection, signed)
    return Report([_chain(one) for one in checked], findings)


async def intact(connection: Connection) -> int:
    """Recomputes every chain; how many usage records they cover. Raises `Broken`."""
    report = await whole(connection)
    if report.findings:
        raise Broken(report.findings[0])
    return sum(one.rows for one in report.chains if one.chain != CONTROL)


async def newest(connection: Connection, most: int, chain: str | None = None) -> Report:
    """About the last `most` rows of each chain, or of one: less than whole, and soon done."""
    checked = []
    if chain in (None, CONTROL):
        checked.append(await _newest_events(connection, most))
    for partition in await store.seals.usage_heads(connection):
        if chain in (None, chain_of(partition)):
            after = await store.seals.seal_before(connection, partition, most)
            checked.append(await usage(connection, partition, after, page=SMALL_PAGE))
    return Report(
        [_chain(one) for one in checked], [f for one in checked for f in one.findings.all]
    )


async def through(connection: Connection, places: Mapping[int, int]) -> list[Finding]:
    """What does not fit in the chains of these partitions, up to these places."""
    found: list[Finding] = []
    for partition, place in places.items():
        found += (await usage(connection, partition, through=place)).findings.all
    return found


async def usage(
    connection: Connection,
    partition: int,
    after: Head | None = None,
    through: int | None = None,
    page: int = store.seals.PAGE,
) -> Checked:
    """A partition's chain, from its beginning or after a place that is known to be whole, to its
    end or through a place."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        decimals = await store.usage_types(connection)
        heads = await store.seals.usage_heads(connection)
        begin = after or Head(0, FIRST_SEAL)
        newest = heads[partition]
        return await records.check(connection, partition, newest, decimals, begin, through, page)


async def events_after(connection: Connection, after: ControlHead, most: int) -> Checked:
    """Events after a place that was whole, at most so many."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return await events.check(connection, after, most)


async def control(connection: Connection) -> Checked:
    """The chain of audit events, all of it; and that there is no other."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        checked = await events.check(connection)
        for name in set(await store.audit.chains(connection)) - {CONTROL}:
            checked.findings.add(None, f"there is a chain of another name: {name[:50]!r}")
        return checked


async def _newest_events(connection: Connection, most: int) -> Checked:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        after = await before_newest(connection, most)
        return await events.check(connection, after, page=SMALL_PAGE)


async def before_newest(connection: Connection, most: int) -> ControlHead:
    """The place so many events before the head; the beginning where that event is missing."""
    head = await store.audit.head(connection)
    at = max(0, head.sequence - most) if head else 0
    said = await store.audit.hash_at(connection, at) if at else None
    return ControlHead(0, FIRST_EVENT) if said is None else ControlHead(at, said)


async def _strays(connection: Connection) -> list[Finding]:
    """Rows of partitions that there are not: no chain would come by them."""
    found = [
        Finding(chain_of(one.partition), one.position, str(one.usage_id), "is in no chain")
        for one in await store.seals.stray_records(connection, MOST)
        if one.position >= 1  # of before the first place, the chain itself tells
    ]
    for partition in await store.seals.stray_seals(connection, MOST):
        found.append(Finding(chain_of(partition), None, None, "has seals, and is no chain"))
    return found


async def _compared(connection: Connection, signed: SignedHeads) -> list[Finding]:
    """Heads that were signed once against what is at their places now."""
    found = []
    for chain, (sequence, said) in signed.heads.items():
        if sequence == 0:
            continue
        here = await _hash_at(connection, chain, sequence)
        if here is None:
            what = "the signed head is of a place that is not there: the chain was cut off"
            found.append(Finding(chain, sequence, None, what))
        elif here.hex() != said:
            what = "is not what the signed head says: the chain was made anew"
            found.append(Finding(chain, sequence, None, what))
    return await _explained(connection, signed, found)


async def _hash_at(connection: Connection, chain: str, sequence: int) -> bytes | None:
    if chain == CONTROL:
        return await store.audit.hash_at(connection, sequence)
    partition = chain.removeprefix("usage:")
    if not partition.isdigit() or int(partition) >= 2**15:
        return None
    return await store.seals.seal_at(connection, int(partition), sequence)


async def _explained(
    connection: Connection, signed: SignedHeads, found: Sequence[Finding]
) -> list[Finding]:
    """A restore of a backup that is older than the head cuts chains off as well, and says so."""
    restores = [
        one
        for one in (await store.audit.restores_since(connection, signed.at) if found else ())
        if one.backup_created_at < signed.at
    ]
    if not restores:
        return list(found)
    at, backup = restores[0]
    told = (
        f"; a backup of {instant(backup)} was restored at {instant(at)}, which would explain it: "
        "was that restore wanted?"
    )
    return [msgspec.structs.replace(one, what=one.what + told) for one in found]


def _chain(one: Checked) -> Chain:
    return Chain(one.findings.chain, one.first, one.at, one.rows, one.head.hex())


def text(report: Report) -> str:
    """For people: a line per chain, and one for each finding."""
    wrong: Mapping[str, int] = {
        one.chain: sum(finding.chain == one.chain for finding in report.findings)
        for one in report.chains
    }
    lines = [
        f"{one.chain:12} {'holds' if not wrong[one.chain] else f'{wrong[one.chain]} found':10} "
        f"{one.rows:,} rows, places {one.checked_from} to {one.checked_through}"
        for one in report.chains
    ]
    return "\n".join([*lines, *(f"    {one.said}" for one in report.findings)])
