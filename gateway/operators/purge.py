"""``./run purge``: drops months of usage records that were kept long enough, archived first."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

from gateway.backup.key import key_of
from gateway.backup.problem import BackupProblem
from gateway.export import month as months
from gateway.operators.session import DONE, FAILED, Session, add_actor, answer, fail
from ledger import retention, service_time, store
from ledger.domain.retention import Refusal
from ledger.settings import Settings

_NAMED = 5  # reasons in the line of a refusal; --dry-run shows all
_WHY = {
    "retained": "its retention class",
    "legal_hold": "a legal hold",
    "access_to_books": "access to its books",
    "unsettled": "usage that is not settled: invoices, corrections or dead letters",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``./run purge``."""
    parser.add_argument(
        "--before", metavar="YYYY-MM", type=_month, required=True, help="every month before this"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be purged")
    parser.add_argument(
        "--to", metavar="FOLDER", type=Path, help="of the archives (purged in BILLING_DATA_DIR)"
    )
    add_actor(parser)


async def purge(args: argparse.Namespace, config: Settings) -> int:
    """Runs ``./run purge``; the exit code. Raises `BackupProblem`, `SettingError`."""
    return await answer(config, lambda session: _purge(session, args), patient=True)


async def _purge(session: Session, args: argparse.Namespace) -> int:
    db = session.connection
    if not await store.retention.hold_purge(db):
        return fail("another purge is running; wait for it")
    now = await service_time.now(db)
    due = await store.retention.months_before(db, args.before)
    found = [one for month in due for one in await retention.kept(db, month, now)]
    if args.dry_run:
        return await _show(session, due, found)
    if found:
        return await _refused(session, args, found, now)
    key, folder = key_of(session.settings), _folder(args, session.settings)
    for month in due:
        try:
            done = await months.purge(db, month, folder, key, actor=args.actor, now=now)
        except retention.Kept as kept:  # since it was looked at
            return await _refused(session, args, kept.refusals, now)
        print(f"{month:%Y-%m}: {done.sums.records:,} records purged; {folder / done.archive}")
    if not due:
        print(f"there is nothing before {args.before:%Y-%m}")
    return DONE


async def _show(session: Session, due: Sequence[date], found: Sequence[Refusal]) -> int:
    for month in due:
        reasons = [_reason(one) for one in found if one.month == month]
        records = (await store.export.sums(session.connection, "month", month)).records
        print(f"{month:%Y-%m}: {records:,} records, {'kept' if reasons else 'may be purged'}")
        for reason in reasons:
            print(f"    {reason}")
    print("nothing was changed")
    return FAILED if found else DONE


async def _refused(
    session: Session, args: argparse.Namespace, found: Sequence[Refusal], now: datetime
) -> int:
    await retention.refused(session.connection, args.before, found, actor=args.actor, now=now)
    first = min(one.month for one in found)
    told = [_reason(one) for one in found if one.month == first]
    more = f"; and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    return fail(f"{first:%Y-%m} is kept by {'; '.join(told[:_NAMED])}{more}. Nothing was purged")


def _reason(one: Refusal) -> str:
    who = f"organization {one.organization_id}" if one.organization_id else "no organization"
    when = f", until {one.possible_on}" if one.possible_on else ""
    return f"{who}: {_WHY[one.reason]}{when}"


def _folder(args: argparse.Namespace, config: Settings) -> Path:
    if args.to is not None:
        return Path(args.to)
    folder = config.data_dir / "purged"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BackupProblem(f"{folder} cannot be made: {error.strerror}", 2) from None
    return folder


def _month(text: str) -> date:
    if not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", text) or text.startswith("0000"):
        raise argparse.ArgumentTypeError("must be a month, such as 2026-01")
    return date(int(text[:4]), int(text[5:]), 1)
