"""``./run accept-gap`` and ``./run adopt-redis``: what only a person can decide of a partition."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable

from gateway.operators.session import Session, add_actor, answer, fail, number, text
from ledger import clock
from ledger.adoption import Adoption, NothingToDecide, Situation, situation
from ledger.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``./run accept-gap`` and ``./run adopt-redis``."""
    parser.add_argument("partitions", metavar="PARTITION", nargs="+", type=number)
    parser.add_argument(
        "--reason", metavar="TEXT", type=text, help="without one nothing is decided, only shown"
    )
    add_actor(parser)


async def accept_gap(args: argparse.Namespace, config: Settings) -> int:
    """Runs ``./run accept-gap``; the exit code."""

    async def accept(adoption: Adoption, partition: int) -> str:
        await adoption.accept_gap(partition)
        return "accepted; quotas are rebuilt from what the ledger has"

    return await answer(config, lambda session: _partitions(session, args, _say_gap, accept))


async def adopt_redis(args: argparse.Namespace, config: Settings) -> int:
    """Runs ``./run adopt-redis``; the exit code."""

    async def adopt(adoption: Adoption, partition: int) -> str:
        parked = await adoption.adopt(partition)
        return f"adopted; {parked} entries from before the cursor are dead letters now"

    return await answer(config, lambda session: _partitions(session, args, _say_foreign, adopt))


async def _partitions(
    session: Session,
    args: argparse.Namespace,
    say: Callable[[Situation], str],
    decide: Callable[[Adoption, int], Awaitable[str]],
) -> int:
    """Says how each partition stands and, with a reason given, decides; of none when one of them
    does not exist."""
    worst = 0
    found = {
        one: await situation(session.connection, session.redis, one) for one in args.partitions
    }
    for partition, stands in found.items():
        print(f"partition {partition}: {say(stands)}")
        if args.reason is None:
            continue
        adoption = Adoption(
            session.connection,
            session.redis,
            session.scripts,
            actor=args.actor,
            at=clock.now(),
            reason=args.reason,
        )
        try:
            print(f"partition {partition}: {await decide(adoption, partition)}")
        except NothingToDecide as error:
            worst = fail(str(error))
    if args.reason is None and not worst:
        print("nothing was changed; --reason TEXT decides")
    return worst


def _say_gap(found: Situation) -> str:
    if not found.gap:
        return f"no gap: drained up to {found.row.last_id}, Redis has everything after it"
    count = "an unknown number of" if found.missing is None else str(found.missing)
    return (
        f"the ledger ends at {found.row.last_id}, Redis begins after {found.redis.floor}: "
        f"{count} entries in between are missing"
    )


def _say_foreign(found: Situation) -> str:
    if not found.foreign:
        return f"Redis is the one that the ledger believes, {found.row.replid}"
    return (
        f"Redis holds the history of {found.redis.replid} up to {found.redis.last_id}; the ledger "
        f"believes {found.row.replid or 'no server yet'} and has drained up to {found.row.last_id}"
    )
