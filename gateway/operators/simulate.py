"""``./run simulate``: what past usage would have cost under a plan. Reads, and changes nothing."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal

import msgspec

from gateway.operators.session import DONE, WRONG_USAGE, Session, answer, fail, text
from gateway.wrong_body import say
from ledger import store
from ledger.db import Connection
from ledger.domain.ids import dev_uuid, parse
from ledger.domain.money import amount_text
from ledger.domain.plan import Plan
from ledger.domain.plan_problems import PlanError, check
from ledger.settings import Settings
from ledger.simulation import Compared, Simulation

MOST_BYTES = 2 * 1024 * 1024  # of a plan: as much as the API takes


class Total(msgspec.Struct):
    """Of all subscriptions in one currency. `difference` is null where the plan has another."""

    currency: str
    simulated_currency: str
    subscriptions: int = 0
    periods: int = 0
    in_force: Decimal = Decimal(0)
    simulated: Decimal = Decimal(0)

    def add(self, one: Compared) -> None:
        self.subscriptions += 1
        self.periods += one.periods
        self.in_force += one.in_force
        self.simulated += one.simulated


class Wrong(Exception):
    """What was asked for cannot be done; the message is the line to say."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``./run simulate``."""
    parser.add_argument(
        "--plan", metavar="FILE", required=True, help="a plan as PUT /plans takes it; - is stdin"
    )
    of = "billing periods that began on this day or later"
    parser.add_argument("--from", metavar="DATE", dest="since", type=_day, required=True, help=of)
    parser.add_argument(
        "--to", metavar="DATE", dest="until", type=_day, required=True, help="and before this one"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--organization", metavar="ID", type=text, help="what it pays for")
    which.add_argument(
        "--user", metavar="ID", type=text, help="what the user pays for, or used without paying"
    )
    which.add_argument(
        "--on",
        metavar="TIER",
        type=text,
        help="live subscriptions on a public version of this plan",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


async def simulate(args: argparse.Namespace, config: Settings) -> int:
    """Runs ``./run simulate``; the exit code."""
    try:
        if args.since >= args.until:
            raise Wrong("--from must be before --to")
        plan = _plan(args.plan)
    except Wrong as error:
        return fail(str(error), WRONG_USAGE)
    return await answer(config, lambda session: _simulate(session, args, plan), patient=True)


async def _simulate(session: Session, args: argparse.Namespace, plan: Plan) -> int:
    db = session.connection
    async with db.transaction(isolation="repeatable_read", readonly=True):
        await store.billing_periods.take_time(db)
        simulation = Simulation(db, plan, args.since, args.until)
        try:
            check(plan, await store.usage_types(db))
            found = _found(db, simulation, args, is_dev=session.settings.is_dev)
            await (_print_json if args.json else _print_table)(found, simulation, args, plan)
            sys.stdout.flush()
        except PlanError as error:
            return fail(f"the plan: {error}", WRONG_USAGE)
        except Wrong as error:
            return fail(str(error), WRONG_USAGE)
        except BrokenPipeError:  # whoever reads has seen enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


async def _found(
    db: Connection, simulation: Simulation, args: argparse.Namespace, *, is_dev: bool
) -> AsyncIterator[Compared]:
    """Each subscription with periods in the window. Raises `Wrong` for a payer or a plan nobody
    knows."""
    identify = dev_uuid if is_dev else parse
    try:
        user = identify(args.user) if args.user else None
        organization = identify(args.organization) if args.organization else None
    except ValueError:
        raise Wrong("--user and --organization need a UUID") from None
    if args.on and await store.newest_plan(db, args.on) is None:
        raise Wrong("--on: is no plan of the catalogue; GET /plans lists it")
    known = False
    async for one in simulation.subscriptions(user, organization, args.on):
        known = True
        if one.periods or one.left_out:
            yield one
    if user and (free := await simulation.without_subscription(user)):
        known = True
        yield free
    if user and not known:
        raise Wrong("--user: has no subscription, and in these days no usage without one")
    if organization and not known:
        raise Wrong("--organization: has no subscription")


async def _print_json(
    found: AsyncIterator[Compared], simulation: Simulation, args: argparse.Namespace, plan: Plan
) -> None:
    """Prints while it reads: there may be more than memory holds."""
    totals, left_out, began = dict[str, Total](), 0, False
    async for one in found:
        totals.setdefault(one.currency, Total(one.currency, plan.currency)).add(one)
        left_out += one.left_out
        print(",\n" if began else _head(args, plan), _json(_row(one, plan)), sep="", end="")
        began = True
    tail = {
        "totals": [_total(one) for one in totals.values()],
        "left_out": left_out,
        "not_priced": sorted(simulation.not_priced),
    }
    print("" if began else _head(args, plan), "],\n", _json(tail)[1:], sep="")


def _head(args: argparse.Namespace, plan: Plan) -> str:
    said = {"plan_tier": plan.tier, "from": args.since, "to": args.until}
    return _json(said)[:-1] + ', "data": [\n'


def _json(said: object) -> str:
    return msgspec.json.encode(said).decode()


def _row(one: Compared, plan: Plan) -> dict[str, object]:
    return {
        "subscription_id": one.subscription_id,
        "scope": one.scope,
        "user_id": one.user_id,
        "organization_id": one.organization_id,
        "periods": one.periods,
        "left_out": one.left_out,
        "currency": one.currency,
        **_amounts(one.in_force, one.currency, one.simulated, plan.currency),
    }


def _total(one: Total) -> dict[str, object]:
    return {
        "currency": one.currency,
        "simulated_currency": one.simulated_currency,
        "subscriptions": one.subscriptions,
        "periods": one.periods,
        **_amounts(one.in_force, one.currency, one.simulated, one.simulated_currency),
    }


def _amounts(
    in_force: Decimal, currency: str, simulated: Decimal, plan_currency: str
) -> dict[str, str | None]:
    same = currency == plan_currency
    return {
        "in_force": amount_text(in_force, currency),
        "simulated": amount_text(simulated, plan_currency),
        "difference": amount_text(simulated - in_force, currency) if same else None,
    }


_LINE = "{:36}  {:36}  {:>7}  {:>16}  {:>16}  {:>16}  {}"


async def _print_table(
    found: AsyncIterator[Compared], simulation: Simulation, args: argparse.Namespace, plan: Plan
) -> None:
    totals, left_out = dict[str, Total](), 0
    async for one in found:
        if not totals:
            print(f"plan {plan.tier}, periods that began from {args.since} to before {args.until}")
            print(_LINE.format("subscription", "paid by", "periods", *_COLUMNS, "currency"))
        totals.setdefault(one.currency, Total(one.currency, plan.currency)).add(one)
        left_out += one.left_out
        payer = one.organization_id if one.scope == "organization" else one.user_id
        name = str(one.subscription_id or "without a subscription")
        amounts = _amounts(one.in_force, one.currency, one.simulated, plan.currency)
        print(_line(name, str(payer), one.periods, amounts, one.currency, plan.currency))
    for total in totals.values():
        amounts = _amounts(total.in_force, total.currency, total.simulated, plan.currency)
        print(_line(f"all {total.subscriptions}", "", total.periods, amounts, total.currency,
                    plan.currency))  # fmt: skip
    if not totals:
        print("no subscription has a period that began in these days")
    if left_out:
        print(f"left out: {left_out} periods of another length than the plan's {plan.interval}")
    if simulation.not_priced:
        print(f"used and not priced by the plan: {', '.join(sorted(simulation.not_priced))}")


_COLUMNS = ("in force", "simulated", "difference")


def _line(
    name: str, payer: str, periods: int, amounts: dict[str, str | None], one: str, other: str
) -> str:
    shown = [amount or "-" for amount in amounts.values()]
    return _LINE.format(name, payer, periods, *shown, one if one == other else f"{one}, {other}")


def _plan(path: str) -> Plan:
    """The plan that a file says. Raises `Wrong`."""
    try:
        if path == "-":
            raw = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with open(path, "rb") as file:
                raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise Wrong(f"--plan: the file cannot be read: {error.strerror}") from None
    if len(raw) > MOST_BYTES:
        raise Wrong(f"--plan: a plan has at most {MOST_BYTES} bytes")
    try:
        return msgspec.json.decode(raw, type=Plan)
    except msgspec.ValidationError as error:
        raise Wrong(say(str(error), Plan, "the plan")) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Wrong("--plan: the file is not valid JSON") from None


def _day(said: str) -> date:
    try:
        return date.fromisoformat(said)
    except ValueError:
        raise argparse.ArgumentTypeError("must be a day such as 2026-01-31") from None
