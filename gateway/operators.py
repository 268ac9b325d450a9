"""``./run dead-letters``, ``accept-gap`` and ``adopt-redis``: what only a person can decide.

Exit codes: 0 done, 1 not (all) done, 2 wrong usage or configuration. Each may be run again.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from ledger import clock, db, logs, migrate, settings, store
from ledger.adoption import Adoption, NothingToDecide, Situation, situation
from ledger.dead_letters import DeadLetters, NotOpen, Outcome, Settled
from ledger.recovery import Superseded
from lua.connection import RedisConnection, RedisUnavailable
from lua.scripts import Scripts
from lua.types import Fenced

LONGEST_TEXT = 500  # of an actor or a reason: a line for an auditor, not a document

_OUTCOMES = {
    Outcome.RECORDED: "recorded",
    Outcome.REPEAT: "its usage was recorded from another entry; the quota has the units back",
    Outcome.KNOWN: "its usage had been recorded already",
    Outcome.DISCARDED: "discarded; the quota has the units back",
    Outcome.BEFORE: "was settled before",
}


def letters_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``./run dead-letters``."""
    work = parser.add_subparsers(dest="work", required=True, metavar="list|retry|discard")
    shown = work.add_parser("list", help="open ones, oldest first")
    shown.add_argument("--all", action="store_true", help="settled ones too")
    shown.add_argument("--json", action="store_true", help="as one JSON array")
    retry = work.add_parser("retry", help="book them as the ledger would")
    which = retry.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", metavar="ID", nargs="*", type=_number, default=[])
    which.add_argument("--all-open", action="store_true")
    _add_actor(retry)
    discard = work.add_parser("discard", help="let them go; the quota gets their units back")
    discard.add_argument("ids", metavar="ID", nargs="+", type=_number)
    discard.add_argument("--reason", metavar="TEXT", type=_text, required=True)
    _add_actor(discard)


def partition_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``./run accept-gap`` and ``./run adopt-redis``."""
    parser.add_argument("partitions", metavar="PARTITION", nargs="+", type=_number)
    parser.add_argument(
        "--reason", metavar="TEXT", type=_text, help="without one nothing is decided, only shown"
    )
    _add_actor(parser)


def _add_actor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--actor", metavar="NAME", type=_text, default=_user(), help="who decides (%(default)s)"
    )


def _user() -> str:
    """Who the system says this is: a variable could say anything."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not have a name
        return f"uid {os.getuid()}"


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError("must be a whole number")
    return int(text)


def _text(text: str) -> str:
    if not (text.strip() and text.isprintable() and len(text) <= LONGEST_TEXT):
        raise argparse.ArgumentTypeError(f"must be one line of up to {LONGEST_TEXT} characters")
    return text.strip()


class Session:
    """What a decision is made with."""

    def __init__(self, connection: db.Connection, redis: RedisConnection) -> None:
        self.connection = connection
        self.redis = redis
        self.scripts = Scripts(redis)


async def dead_letters(args: argparse.Namespace) -> int:
    """Runs ``./run dead-letters``; the exit code."""
    return await _answer(lambda session: _LETTERS[args.work](session, args))


async def accept_gap(args: argparse.Namespace) -> int:
    """Runs ``./run accept-gap``; the exit code."""

    async def accept(adoption: Adoption, partition: int) -> str:
        await adoption.accept_gap(partition)
        return "accepted; quotas are rebuilt from what the ledger has"

    return await _answer(lambda session: _partitions(session, args, _say_gap, accept))


async def adopt_redis(args: argparse.Namespace) -> int:
    """Runs ``./run adopt-redis``; the exit code."""

    async def adopt(adoption: Adoption, partition: int) -> str:
        parked = await adoption.adopt(partition)
        return f"adopted; {parked} entries from before the cursor are dead letters now"

    return await _answer(lambda session: _partitions(session, args, _say_foreign, adopt))


async def _answer(work: Callable[[Session], Awaitable[int]]) -> int:
    """Does the work; whatever stands in its way is one line."""
    logs.silence()
    config = settings.load()
    try:
        async with _session(config) as session:
            return await work(session)
    except migrate.MigrationError as error:
        return _fail(str(error), 2)
    except Superseded:
        return _fail("Redis holds another history than the ledger; ./run adopt-redis comes first")
    except db.LockNotAvailable:
        return _fail("the ledger is busy with that partition and did not let go; try again")
    except (Fenced, RedisUnavailable) as error:
        said = str(error) or "Redis restarted meanwhile"
        return _fail(f"{said}; what was decided is kept: run the same command again for the rest")
    except (*db.UNAVAILABLE, db.PostgresError) as error:
        return _fail(f"no answer from Postgres ({type(error).__name__}); run the same again")


@asynccontextmanager
async def _session(config: settings.Settings) -> AsyncIterator[Session]:
    redis = RedisConnection(config.redis_url)
    connection = await db.connect(config.database_url)
    try:
        if missing := await migrate.pending(connection):
            raise migrate.MigrationError(f"{missing[0]} is not applied; run ./run migrate")
        yield Session(connection, redis)
    finally:
        await connection.close(timeout=1)
        await redis.close()


def _fail(line: str, exit_code: int = 1) -> int:
    print(f"billing: {line}", file=sys.stderr)
    return exit_code


async def _list(session: Session, args: argparse.Namespace) -> int:
    letters = await store.dead_letters(session.connection, settled=args.all)
    rows = [_row(letter) for letter in letters]
    if args.json:
        print(msgspec.json.encode(rows).decode())
        return 0
    for row in rows:
        reason = row.pop("reason")
        print("  ".join("-" if value is None else str(value) for value in row.values()))
        print(f"    {reason}")
    if not rows:
        print("there are no dead letters" if args.all else "there are no open dead letters")
    return 0


def _row(letter: store.DeadLetter) -> dict[str, Any]:
    """What an operator needs to know of it; nothing that the caller said freely."""
    return {
        "id": letter.dead_letter_id,
        "partition": letter.partition,
        "stream_id": letter.stream_id,
        "when": letter.created_at.isoformat(timespec="seconds"),
        "usage_type": letter.usage_type,
        "units": letter.units,
        "subject": letter.subject,
        "status": letter.status,
        "reason": letter.reason,
    }


async def _retry(session: Session, args: argparse.Namespace) -> int:
    ids = args.ids
    if args.all_open:
        letters = await store.dead_letters(session.connection, settled=False)
        ids = [letter.dead_letter_id for letter in letters]
    return await _settle(ids, _decider(session, args).retry)


async def _discard(session: Session, args: argparse.Namespace) -> int:
    decider = _decider(session, args)
    return await _settle(args.ids, lambda one: decider.discard(one, args.reason))


def _decider(session: Session, args: argparse.Namespace) -> DeadLetters:
    return DeadLetters(session.connection, session.scripts, actor=args.actor, at=clock.now())


async def _settle(ids: list[int], decide: Callable[[int], Awaitable[Settled]]) -> int:
    """Each by itself: one that cannot be settled does not hold up the others."""
    worst = 0
    for one in ids:
        try:
            done = await decide(one)
        except NotOpen as error:
            worst = _fail(str(error))
            continue
        if done.outcome is Outcome.STILL_OPEN:
            worst = _fail(f"dead letter {one} stays open: {done.reason}")
        else:
            print(f"dead letter {one}: {_OUTCOMES[done.outcome]}")
    return worst


_LETTERS = {"list": _list, "retry": _retry, "discard": _discard}


async def _partitions(
    session: Session,
    args: argparse.Namespace,
    say: Callable[[Situation], str],
    decide: Callable[[Adoption, int], Awaitable[str]],
) -> int:
    """Says how each partition stands and, with a reason given, decides."""
    worst = 0
    for partition in args.partitions:
        try:
            found = await situation(session.connection, session.redis, partition)
            print(f"partition {partition}: {say(found)}")
            if args.reason is not None:
                adoption = Adoption(
                    session.connection,
                    session.redis,
                    session.scripts,
                    actor=args.actor,
                    at=clock.now(),
                    reason=args.reason,
                )
                print(f"partition {partition}: {await decide(adoption, partition)}")
        except NothingToDecide as error:
            worst = _fail(str(error))
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
