"""``./run pseudonymise``: a user is taken out of what need not be kept."""

from __future__ import annotations

import argparse

from gateway.operators.session import DONE, WRONG_USAGE, Session, add_actor, answer, fail, text
from ledger import pseudonyms, service_time, store
from ledger.domain.ids import dev_uuid, parse
from ledger.recalculate import recalculate
from ledger.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``./run pseudonymise``."""
    parser.add_argument("user", metavar="USER", type=text, help="a user's id")
    add_actor(parser)


async def pseudonymise(args: argparse.Namespace, config: Settings) -> int:
    """Runs ``./run pseudonymise``; the exit code."""
    return await answer(config, lambda session: _pseudonymise(session, args), patient=True)


async def _pseudonymise(session: Session, args: argparse.Namespace) -> int:
    try:
        user_id = dev_uuid(args.user) if session.settings.is_dev else parse(args.user)
    except ValueError:
        return fail("pseudonymise needs the UUID of a user", WRONG_USAGE)
    db = session.connection
    if not await store.pseudonyms.is_known(db, user_id):
        return fail("nothing is known of that user")
    now = await service_time.now(db)
    try:
        done = await pseudonyms.pseudonymise(db, user_id, actor=args.actor, now=now)
    except pseudonyms.LiveSubscription:
        return fail("the user has a subscription that goes on; end it first")
    await recalculate(db, session.redis, user_id, partitions=session.partitions, actor=args.actor)
    print(f"exported as {done.pseudonym} from now on; {done.memberships} memberships forgotten")
    print("records, invoices and audit events keep the user's id: see docs/retention.md")
    return DONE
