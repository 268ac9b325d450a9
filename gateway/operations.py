"""The operators' commands: they work on Redis and Postgres themselves, beside a running service."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from uuid import UUID

import msgspec

from gateway.children import StartError
from ledger import db, loops, migrate, settings
from ledger.domain.ids import dev_uuid, parse
from ledger.recalculate import recalculate as recalculate_quotas
from ledger.reconcile import Reconciler
from ledger.reconcile.counters import NotCompared
from ledger.reconcile.findings import text
from lua.connection import RedisConnection, RedisUnavailable
from lua.scripts import Scripts
from lua.types import Fenced

HOLDS, FAILED, WRONG_USAGE, FOUND = 0, 1, 2, 3


class Servers(NamedTuple):
    settings: settings.Settings
    connection: db.Connection
    redis: RedisConnection


@asynccontextmanager
async def servers() -> AsyncIterator[Servers]:
    """Both, of the service that the environment names. Raises `SettingError`, or `StartError` with
    the line to show when one does not answer or is not this build's."""
    config = settings.load()
    redis = RedisConnection(config.redis_url)
    try:
        connection = await db.connect(config.database_url, patient=True)
        try:
            missing = await migrate.pending(connection)
            if missing:
                raise StartError(f"{missing[0]} is not applied; run ./run migrate", WRONG_USAGE)
            await loops.check_partitions(connection, config.partitions, fix=False)
            yield Servers(config, connection, redis)
        finally:
            await connection.close()
    except (loops.PartitionsChanged, migrate.MigrationError) as error:
        raise StartError(str(error), WRONG_USAGE) from None
    except RedisUnavailable as error:
        raise StartError(f"Redis: {error}", FAILED) from None
    except Fenced:
        raise StartError(
            "Redis has not been vouched for yet; is a ledger running?", FAILED
        ) from None
    except NotCompared as error:
        raise StartError(f"cannot be compared now: {error}; try again", FAILED) from None
    except (*db.UNAVAILABLE, db.PostgresError) as error:
        raise StartError(f"Postgres does not answer ({type(error).__name__})", FAILED) from None
    finally:
        await redis.close()


def reconcile_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--repair", action="store_true", help="have quotas that do not agree loaded anew; audited"
    )
    parser.epilog = "Exit codes: 0 all holds, 1 could not be compared, 3 something does not agree."


async def reconcile(args: argparse.Namespace) -> int:
    """Compares everything: rows, totals, seals and the counters in Redis."""
    async with servers() as (config, connection, redis):
        reconciler = Reconciler(connection, redis, Scripts(redis), repair=args.repair)
        report = await reconciler.whole(range(config.partitions))
    print(msgspec.json.encode(report).decode() if args.json else text(report))
    return FOUND if report.findings else FAILED if report.skipped else HOLDS


def recalculate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="USER|ORG", help="a user's or an organisation's id")
    parser.add_argument("--actor", default=getpass.getuser(), help="who, for the audit trail")


async def recalculate(args: argparse.Namespace) -> int:
    """Makes the quotas counted under an id anew from the rows."""
    async with servers() as (config, connection, redis):
        try:
            identifier: UUID = dev_uuid(args.id) if config.is_dev else parse(args.id)
        except ValueError:
            return _fail("recalculate needs the UUID of a user or an organization", WRONG_USAGE)
        done = await recalculate_quotas(
            connection, redis, identifier, partitions=config.partitions, actor=args.actor
        )
    if not done.subjects:
        return _fail(f"nothing is counted under {identifier}", FAILED)
    for line in done.wrong:
        print(f"did not agree: {line}")
    for subject in done.subjects:
        print(f"recalculated: {subject}")
    return HOLDS


def _fail(line: str, exit_code: int) -> int:
    print(f"billing: {line}", file=sys.stderr)
    return exit_code
