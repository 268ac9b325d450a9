"""``./run reconcile stripe``: usage, invoices and Stripe beside each other."""

from __future__ import annotations

import argparse
from datetime import UTC, date, datetime, time

from gateway.operators.session import DONE, FAILED, FOUND, WRONG_USAGE, Session, answer, fail
from ledger import clock, store
from ledger.settings import SettingError, Settings

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)  # before Stripe, and in all that counts back from it


def add_days(parser: argparse.ArgumentParser) -> None:
    """The options of ``./run reconcile stripe``."""
    days = (
        ("--from", "since", "with stripe: invoices issued, or made there, from this day on"),
        ("--to", "until", "with stripe: before this day"),
    )
    for name, kept, meaning in days:
        parser.add_argument(name, metavar="DATE", type=_day, dest=kept, help=meaning)


def _day(said: str) -> datetime:
    try:
        day = datetime.combine(date.fromisoformat(said), time(), UTC)
    except ValueError:
        raise argparse.ArgumentTypeError("must be a day such as 2026-01-31") from None
    if day < EARLIEST:
        raise argparse.ArgumentTypeError(f"must be {EARLIEST:%Y-%m-%d} or later")
    return day


async def reconcile_stripe(args: argparse.Namespace, config: Settings) -> int:
    """Compares invoices with Stripe's; the exit code."""
    if args.repair:
        return fail("reconcile stripe repairs nothing: leave out --repair", WRONG_USAGE)
    if config.stripe_api_key is None:
        raise SettingError("STRIPE_API_KEY", "is not set here: give it as the ledger has it")
    now = clock.now()
    if (args.since or now) > now or (args.since and args.until and args.until <= args.since):
        return fail("--from must be before --to, and not after today", WRONG_USAGE)
    return await answer(config, lambda session: _compare(session, args, now), patient=True)


async def _compare(session: Session, args: argparse.Namespace, now: datetime) -> int:
    # Not at the top: the library costs 10 MiB, and no other command needs it.
    from ledger.reconcile import stripe_report
    from ledger.reconcile.against_stripe import AgainstStripe, days_of
    from ledger.reconcile.stripe_daily import EVERY
    from ledger.stripe_api import StripeApi
    from ledger.stripe_reading import StripeReading

    key = session.settings.stripe_api_key
    assert key is not None, "it was looked at"
    api = StripeApi(key.reveal(), session.settings.stripe_api_base)
    try:
        days = days_of(now, args.since, args.until)
        report = await AgainstStripe(session.connection, StripeReading(api), days, now).run()
    finally:
        await api.close()
    whole = not (args.since or args.until or report.not_compared)
    if whole and await store.stripe_reconcile.state(session.connection) is not None:
        next_at = now + EVERY
        await store.stripe_reconcile.note(
            session.connection, now, next_at, report.counts, completed=True
        )
    print(stripe_report.as_json(report).decode() if args.json else stripe_report.text(report))
    if report.disagrees:
        return FOUND
    return FAILED if report.not_compared else DONE
