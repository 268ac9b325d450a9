"""``./run reconcile`` and ``./run recalculate``: do counts agree, and make them anew."""

from __future__ import annotations

import argparse

import msgspec

from gateway.operators.beside_stripe import add_days, reconcile_stripe
from gateway.operators.session import (
    DONE,
    FAILED,
    FOUND,
    WRONG_USAGE,
    Session,
    add_actor,
    answer,
    fail,
    text,
)
from ledger.domain.ids import dev_uuid, parse
from ledger.recalculate import recalculate as recalculate_quotas
from ledger.reconcile import Reconciler
from ledger.reconcile.findings import text as in_words
from ledger.settings import Settings


def add_reconcile_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``./run reconcile``."""
    parser.add_argument(
        "side",
        nargs="?",
        choices=["stripe"],
        help="compare invoices with Stripe's, and with usage; without it all else",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--repair", action="store_true", help="have quotas that do not agree loaded anew; audited"
    )
    add_days(parser)
    parser.epilog = "Exit codes: 0 all holds, 1 could not be compared, 3 something does not agree."


async def reconcile(args: argparse.Namespace, config: Settings) -> int:
    """Compares everything: rows, totals, seals and the counters in Redis; or all with Stripe."""
    if args.side == "stripe":
        return await reconcile_stripe(args, config)
    if args.since or args.until:
        return fail("reconcile takes --from and --to only with stripe", WRONG_USAGE)
    return await answer(config, lambda session: _reconcile(session, args), patient=True)


async def _reconcile(session: Session, args: argparse.Namespace) -> int:
    reconciler = Reconciler(session.connection, session.redis, session.scripts, repair=args.repair)
    report = await reconciler.whole(session.partitions)
    print(msgspec.json.encode(report).decode() if args.json else in_words(report))
    return FOUND if report.findings else FAILED if report.skipped else DONE


def add_recalculate_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``./run recalculate``."""
    parser.add_argument(
        "id", metavar="USER|ORG", type=text, help="a user's or an organisation's id"
    )
    add_actor(parser)


async def recalculate(args: argparse.Namespace, config: Settings) -> int:
    """Makes the quotas counted under an id anew from the rows."""
    return await answer(config, lambda session: _recalculate(session, args), patient=True)


async def _recalculate(session: Session, args: argparse.Namespace) -> int:
    try:
        identifier = dev_uuid(args.id) if session.settings.is_dev else parse(args.id)
    except ValueError:
        return fail("recalculate needs the UUID of a user or an organization", WRONG_USAGE)
    done = await recalculate_quotas(
        session.connection,
        session.redis,
        identifier,
        partitions=session.partitions,
        actor=args.actor,
    )
    if not done.subjects:
        return fail(f"nothing is counted under {identifier}")
    for line in done.wrong:
        print(f"did not agree: {line}")
    for subject in done.subjects:
        print(f"recalculated: {subject}")
    return DONE
