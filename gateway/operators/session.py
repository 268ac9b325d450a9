"""What the operators' commands have in common: both servers, who decides, and how it ends.

Exit codes: 0 done, 1 not (all) done, 2 wrong usage or configuration, 3 something does not agree.
Each command may be run again.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from ledger import db, logs, migrate, store
from ledger.adoption import NoSuchPartition
from ledger.reconcile.counters import NotCompared
from ledger.recovery import Superseded
from ledger.settings import Settings
from lua.cluster import Cluster
from lua.connection import RedisConnection, RedisUnavailable
from lua.scripts import Scripts
from lua.types import Fenced

DONE, FAILED, WRONG_USAGE, FOUND = 0, 1, 2, 3
LONGEST_TEXT = 500  # of an actor or a reason: a line for an auditor, not a document


class Session:
    """What a command works with."""

    def __init__(
        self,
        config: Settings,
        connection: db.Connection,
        redis: Cluster[RedisConnection],
        partitions: int,
    ) -> None:
        self.settings = config
        self.connection = connection
        self.redis = redis
        self.partitions = partitions  # that the database was made with, whatever the variable says
        self.scripts = Scripts(redis)


async def answer(
    config: Settings, work: Callable[[Session], Awaitable[int]], *, patient: bool = False
) -> int:
    """Does the work; whatever stands in its way is one line. `patient`: reads whole tables."""
    logs.silence()
    try:
        async with _session(config, patient) as session:
            return await work(session)
    except (migrate.MigrationError, NoSuchPartition) as error:
        return fail(str(error), WRONG_USAGE)
    except Superseded:
        return fail("Redis holds another history than the ledger; ./run adopt-redis comes first")
    except NotCompared as error:
        return fail(f"cannot be compared now: {error}; try again")
    except db.LockNotAvailable:
        return fail("the ledger is busy with that partition and did not let go; try again")
    except Fenced:
        return fail("Redis has not been vouched for: is a ledger running? Then run the same again")
    except RedisUnavailable as error:
        return fail(f"{error}; what was decided is kept: run the same again when Redis answers")
    except (*db.UNAVAILABLE, db.PostgresError) as error:
        if (line := db.misconfigured(error)) is not None:
            return fail(line, WRONG_USAGE)
        return fail(f"no answer from Postgres ({type(error).__name__}); run the same again")


@asynccontextmanager
async def _session(config: Settings, patient: bool) -> AsyncIterator[Session]:
    redis = Cluster(config.redis_url, RedisConnection)
    connection = await db.connect(config.database_url, patient=patient)
    try:
        if missing := await migrate.pending(connection):
            raise migrate.MigrationError(f"{missing[0]} is not applied; run ./run migrate")
        yield Session(config, connection, redis, await store.count_cursors(connection))
    finally:
        await connection.close(timeout=1)
        await redis.close()


def fail(line: str, exit_code: int = FAILED) -> int:
    print(f"billing: {line}", file=sys.stderr)
    return exit_code


def add_actor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--actor", metavar="NAME", type=text, default=_user(), help="who decides (%(default)s)"
    )


def _user() -> str:
    """Who the system says this is: a variable could say anything."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not have a name
        return f"uid {os.getuid()}"


def number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError("must be a whole number")
    return int(text)


def count(text: str) -> int:
    if (found := number(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return found


def text(said: str) -> str:
    if not (said.strip() and said.isprintable() and len(said) <= LONGEST_TEXT):
        raise argparse.ArgumentTypeError(f"must be one line of up to {LONGEST_TEXT} characters")
    return said.strip()
