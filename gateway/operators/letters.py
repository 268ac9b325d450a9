"""``./run dead-letters``: entries that could not be written."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from gateway.operators.session import (
    DONE,
    Session,
    add_actor,
    answer,
    count,
    fail,
    number,
    text,
)
from ledger import clock, store
from ledger.dead_letters import DeadLetters, NotOpen, Outcome, Settled
from ledger.settings import Settings

SHOWN = 50  # lines that a person looks through; as many as a page of the API

_OUTCOMES = {
    Outcome.RECORDED: "recorded",
    Outcome.REPEAT: "its usage was recorded from another entry; the quota has the units back",
    Outcome.KNOWN: "its usage had been recorded already",
    Outcome.DISCARDED: "discarded; the quota has the units back",
    Outcome.BEFORE: "was settled before",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``./run dead-letters``."""
    work = parser.add_subparsers(dest="work", required=True, metavar="list|retry|discard")
    shown = work.add_parser("list", help="open ones, newest first")
    shown.add_argument("--all", action="store_true", help="settled ones too")
    shown.add_argument(
        "--limit", metavar="N", type=count, help=f"at most so many ({SHOWN}; with --json all)"
    )
    shown.add_argument("--json", action="store_true", help="as one JSON array")
    retry = work.add_parser("retry", help="book them as the ledger would")
    which = retry.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", metavar="ID", nargs="*", type=number, default=[])
    which.add_argument("--all-open", action="store_true")
    add_actor(retry)
    discard = work.add_parser("discard", help="let them go; the quota gets their units back")
    discard.add_argument("ids", metavar="ID", nargs="+", type=number)
    discard.add_argument("--reason", metavar="TEXT", type=text, required=True)
    add_actor(discard)


async def dead_letters(args: argparse.Namespace, config: Settings) -> int:
    """Runs ``./run dead-letters``; the exit code."""
    return await answer(config, lambda session: _LETTERS[args.work](session, args))


async def _list(session: Session, args: argparse.Namespace) -> int:
    """Prints while it reads: there may be more than memory holds."""
    letters = store.dead_letters(session.connection, settled=args.all)
    try:
        if args.json:
            await _print_json(letters, args.limit)
        elif not await _print_lines(letters, args.limit or SHOWN):
            print("there are no dead letters" if args.all else "there are no open dead letters")
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


async def _print_json(letters: AsyncIterator[store.DeadLetter], limit: int | None) -> None:
    shown = 0
    async for letter in letters:
        if shown == limit:
            break
        print(",\n" if shown else "[", msgspec.json.encode(_row(letter)).decode(), sep="", end="")
        shown += 1
    print("]" if shown else "[]")


async def _print_lines(letters: AsyncIterator[store.DeadLetter], limit: int) -> int:
    shown = 0
    async for letter in letters:
        if shown == limit:
            print(f"there are older ones: --limit {10 * limit} shows more")
            break
        row = _row(letter)
        reason = row.pop("reason")
        print("  ".join("-" if value is None else str(value) for value in row.values()))
        print(f"    {reason}")
        shown += 1
    return shown


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
        ids = await store.open_dead_letters(session.connection)
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
            worst = fail(str(error))
            continue
        if done.outcome is Outcome.STILL_OPEN:
            worst = fail(f"dead letter {one} stays open: {done.reason}")
        else:
            print(f"dead letter {one}: {_OUTCOMES[done.outcome]}")
    return worst


_LETTERS = {"list": _list, "retry": _retry, "discard": _discard}
