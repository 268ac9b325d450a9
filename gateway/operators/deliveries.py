"""``./run stripe``: calls to Stripe that wait for a person."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from gateway.operators.session import (
    DONE,
    Session,
    add_actor,
    answer,
    fail,
    number,
    text,
)
from ledger import clock, store, stripe_calls
from ledger.settings import Settings
from ledger.store.stripe_calls import ParkedCall
from ledger.stripe_calls import NotParked

NONE_PARKED = "no call to Stripe is parked"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``./run stripe``."""
    work = parser.add_subparsers(dest="work", required=True, metavar="parked|retry|skip")
    shown = work.add_parser("parked", help="what waits for a person, oldest first")
    shown.add_argument("--json", action="store_true", help="as one JSON array")
    retry = work.add_parser("retry", help="try them again, now that the cause is mended")
    which = retry.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", metavar="ID", nargs="*", type=number, default=[])
    which.add_argument("--all", action="store_true", help="every parked one")
    add_actor(retry)
    skip = work.add_parser("skip", help="ask Stripe nothing more of their invoices, or usage")
    skip.add_argument("ids", metavar="ID", nargs="+", type=number)
    skip.add_argument("--reason", metavar="TEXT", type=text, required=True)
    add_actor(skip)


async def deliveries(args: argparse.Namespace, config: Settings) -> int:
    """Runs ``./run stripe``; the exit code."""
    return await answer(config, lambda session: _DELIVERIES[args.work](session, args))


async def _parked(session: Session, args: argparse.Namespace) -> int:
    calls = await store.stripe_calls.parked(session.connection)
    if args.json:
        print(msgspec.json.encode([_row(one) for one in calls]).decode())
        return DONE
    for one in calls:
        print("  ".join("-" if value is None else str(value) for value in _row(one).values()))
    if not calls:
        print(NONE_PARKED)
    return DONE


def _row(one: ParkedCall) -> dict[str, Any]:
    return {
        "id": one.call_id,
        "when": one.created_at.isoformat(timespec="seconds"),
        "operation": one.operation,
        "invoice": one.number,
        "payer": f"{one.scope} {one.payer_id}",
        "stripe_invoice": one.stripe_invoice,
        "attempts": one.attempts,
        "reason": one.last_error,
    }


async def _retry(session: Session, args: argparse.Namespace) -> int:
    ids = args.ids
    if args.all:
        ids = [one.call_id for one in await store.stripe_calls.parked(session.connection)]
        if not ids:
            print(NONE_PARKED)
    return await _decide(
        ids,
        lambda one: stripe_calls.retry(session.connection, one, actor=args.actor, now=clock.now()),
        lambda one: f"call {one.call_id}: is tried again",
    )


async def _skip(session: Session, args: argparse.Namespace) -> int:
    return await _decide(
        args.ids,
        lambda one: stripe_calls.skip(
            session.connection, one, args.reason, actor=args.actor, now=clock.now()
        ),
        _skipped,
    )


def _skipped(one: ParkedCall) -> str:
    if one.operation == "meter_event":
        return f"call {one.call_id}: its usage is not sent"
    left = f"; {one.stripe_invoice} stays in Stripe as it is" if one.stripe_invoice else ""
    return f"call {one.call_id}: nothing more is sent of {one.number}{left}"


async def _decide(
    ids: list[int],
    decide: Callable[[int], Awaitable[ParkedCall]],
    said: Callable[[ParkedCall], str],
) -> int:
    """Each by itself: one that cannot be decided does not hold up the others."""
    worst = DONE
    for one in ids:
        try:
            done = await decide(one)
        except NotParked as error:
            worst = fail(str(error))
        else:
            print(said(done))
    return worst


_DELIVERIES = {"parked": _parked, "retry": _retry, "skip": _skip}
