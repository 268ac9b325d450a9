"""The options of ``./run replay``: what they are called, and what they must look like."""

from __future__ import annotations

import argparse
import contextlib
import math
import re
from collections.abc import Callable
from collections.abc import Mapping as Environment
from pathlib import Path
from urllib.parse import urlsplit

from gateway.replay import plan as rows
from gateway.replay.plan import Mapping, Plan
from gateway.replay.send import BATCH


class CommandProblem(Exception):
    """The options or the environment cannot be used; the message is one line for the user."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``./run replay``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = "Send the rows of a CSV file as usage records. Safe to run again."
    parser.epilog = rows.__doc__
    add = parser.add_argument
    add("file", metavar="FILE.csv", type=Path)
    users = parser.add_mutually_exclusive_group(required=True)
    users.add_argument("--user-column", metavar="COL", help="the column with the user id")
    users.add_argument("--users", metavar="N", type=_whole(1), help="make up N users")
    add("--organization-column", metavar="COL", help="with --user-column; empty: personal")
    add("--orgs", metavar="M", type=_whole(0), default=0, help="with --users; 0: personal")
    add(
        "--map",
        metavar="COL=usage_type",
        type=_mapping,
        action="append",
        required=True,
        help="a column of quantities; :row=usage_type counts one per row; repeatable",
    )
    add(
        "--speed",
        metavar="X|max",
        type=_speed,
        default=None,
        help="X times the pace of the time column; max (default): as fast as the service takes",
    )
    add("--time-column", metavar="COL", help="with --speed X: ISO 8601 or Unix seconds")
    add("--url", help="default: http://127.0.0.1:$PORT, 8081 without PORT")
    add("--token", help="better: the environment variable BILLING_TOKEN")
    add(
        "--identity",
        type=_identity,
        help="continue the run that printed this identity with a corrected or grown file",
    )
    add("--concurrency", metavar="N", type=_whole(1), default=4, help="requests at once (4)")
    add("--json", action="store_true", help="the summary as one JSON object")


def plan(args: argparse.Namespace) -> Plan:
    """What the options say about the file. Raises `CommandProblem` when they contradict."""
    if args.organization_column and not args.user_column:
        raise CommandProblem("--organization-column needs --user-column")
    if args.orgs and not args.users:
        raise CommandProblem("--orgs needs --users")
    if args.speed is not None and not args.time_column:
        raise CommandProblem("--speed needs --time-column, or max")
    if len(set(args.map)) < len(args.map):
        raise CommandProblem("the same --map is given twice")
    if len(args.map) > BATCH:
        raise CommandProblem(f"more than {BATCH} times --map")
    return Plan(
        mappings=tuple(args.map),
        user_column=args.user_column,
        organization_column=args.organization_column,
        users=args.users or 0,
        organizations=args.orgs,
        time_column=args.time_column if args.speed is not None else None,
    )


def url(given: str | None, environ: Environment[str, str]) -> str:
    """The service to send to; it is printed, so it may not carry a password."""
    if given is None:
        port = environ.get("PORT", "").strip() or "8081"
        if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
            raise CommandProblem("PORT: must be a whole number from 1 to 65535")
        return f"http://127.0.0.1:{port}"
    try:
        parts = urlsplit(given)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        raise CommandProblem("--url: must look like http://host:port, without user or query")
    return given.rstrip("/")


def token(given: str | None, environ: Environment[str, str]) -> str | None:
    """The bearer token, never printed; a service in dev mode needs none."""
    found = environ.get("BILLING_TOKEN", "").strip() if given is None else given
    if found and not re.fullmatch(r"[!-~]+", found):
        raise CommandProblem(
            f"{'BILLING_TOKEN' if given is None else '--token'}: is not a bearer token"
        )
    return found or None


def _mapping(text: str) -> Mapping:
    column, _, usage_type = text.rpartition("=")
    if not (column.strip() and usage_type.strip()):
        raise argparse.ArgumentTypeError("must look like COLUMN=usage_type")
    return Mapping(column.strip(), usage_type.strip())


def _whole(low: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or int(text) < low:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low}")
        return int(text)

    return parse


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    with contextlib.suppress(ValueError):
        if 0 < (speed := float(text)) < math.inf:
            return speed
    raise argparse.ArgumentTypeError("must be max or a number above 0")


def _identity(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{32}", text):
        raise argparse.ArgumentTypeError("must be the 32 hex digits an earlier run printed")
    return text
