"""The commands of `./run` (installed: `billing`). Each imports what it needs when it is called."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from gateway import environment
from gateway.backup.problem import BackupProblem
from gateway.children import StartError
from ledger import clock
from ledger.settings import SettingError, Settings


class Command(NamedTuple):
    """A subcommand: its one-line help, its work, its options."""

    help: str
    run: Callable[[argparse.Namespace], int]
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. 0: done, 1: failed, 2: wrong usage or configuration."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["up"]
    try:
        if words[0] == "test":  # before argparse, which would claim pytest's options
            return _test(words[1:])
        if words[0] in ("bench", "chaos"):
            return _from_source(words[0], words[1:])
        args = _parser(words[0]).parse_args(words)
        return COMMANDS[args.command].run(args)
    except SettingError as error:
        return _fail(str(error), 2)
    except (StartError, BackupProblem) as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return 130


def _fail(line: str, exit_code: int) -> int:
    print(f"billing: {line}", file=sys.stderr)
    return exit_code


def _parser(chosen: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run", description="Without a command: up.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        child = commands.add_parser(name, help=command.help, description=command.help)
        if name == chosen:  # the others' options would import their modules
            command.add_arguments(child)
    return parser


def _up(_: argparse.Namespace) -> int:
    from gateway.dev import up as dev

    return asyncio.run(dev.up(os.environ))


def _infrastructure(_: argparse.Namespace) -> int:
    from gateway.dev import up as dev

    return asyncio.run(dev.infrastructure(os.environ))


def _token_arguments(parser: argparse.ArgumentParser) -> None:
    from gateway.dev import tokens as dev_tokens

    parser.add_argument("--role", choices=dev_tokens.ROLES, required=True)
    parser.add_argument("--user", metavar="U", help="the user it speaks for: a UUID or any name")
    parser.add_argument(
        "--org",
        metavar="O",
        action="append",
        default=[],
        help="an organisation it may act for; repeatable; a service without one acts for all",
    )
    parser.add_argument("--scope", metavar="S", help="in place of the role's own scope")


def _token(args: argparse.Namespace) -> int:
    from gateway.dev import tokens as dev_tokens

    if args.role == "user" and not args.user:
        return _fail("token --role user needs --user", 2)
    if args.role == "org_admin" and not args.org:
        return _fail("token --role org_admin needs --org", 2)
    data = environment.data_dir(os.environ)
    data.create()
    key = dev_tokens.dev_key(data.path)
    token = dev_tokens.mint(
        key, args.role, user=args.user, organizations=args.org, scope=args.scope
    )
    print(token)
    return 0


def _test(words: list[str]) -> int:
    root = Path(__file__).resolve().parents[1]
    groups = sorted(path.name for path in root.glob("tests/[a-z]*") if path.is_dir())
    if not groups:
        return _fail("the tests come with the source tree, not with the package", 2)
    named = list(takewhile(groups.__contains__, words))
    rest = words[len(named) :]
    if named:
        chosen = [f"tests/{group}" for group in named]
    elif not rest or rest[0].startswith("-"):
        chosen = ["--numprocesses=auto", "--dist=loadfile"]  # a file's tests share its servers
    elif (root / rest[0].partition("::")[0]).exists():
        chosen = []
    else:
        return _fail(f"no test group {rest[0]}; there are: {', '.join(groups)}", 2)
    os.chdir(root)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "pytest", *chosen, *rest])  # noqa: S606


def _from_source(package: str, words: list[str]) -> int:
    if not (Path(__file__).resolve().parents[1] / package).is_dir():
        return _fail(f"{package} comes with the source tree, not with the package", 2)
    os.execv(sys.executable, [sys.executable, "-P", "-m", package, *words])  # noqa: S606


def _migrate(_: argparse.Namespace) -> int:
    from gateway.dev import up as dev

    applied = asyncio.run(dev.migrate(environment.of_database(os.environ).database_url))
    print(f"{applied} migrations applied")
    return 0


def _replay_arguments(parser: argparse.ArgumentParser) -> None:
    from gateway.replay import command as replay

    replay.add_arguments(parser)


def _replay(args: argparse.Namespace) -> int:
    from gateway.replay import command as replay

    return asyncio.run(replay.replay(args, environ=environment.completed(os.environ)))


def _doctor(_: argparse.Namespace) -> int:
    from gateway import doctor

    return asyncio.run(doctor.doctor(environment.of_service(os.environ)))


def _backup_arguments(parser: argparse.ArgumentParser) -> None:
    from gateway.backup import command

    command.add_backup_arguments(parser)


def _backup(args: argparse.Namespace) -> int:
    from gateway.backup import command

    config = environment.of_database(os.environ, needed=args.verify is None)
    return asyncio.run(command.backup(args, config, clock.now(), os.environ))


def _restore_arguments(parser: argparse.ArgumentParser) -> None:
    from gateway.backup import command

    command.add_restore_arguments(parser)


def _restore(args: argparse.Namespace) -> int:
    from gateway.backup import command

    config = environment.of_database(os.environ)
    return asyncio.run(command.restore(args, config, clock.now(), os.environ))


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    from gateway.export import command

    command.add_arguments(parser)


def _export(args: argparse.Namespace) -> int:
    from gateway.export import command

    config = environment.of_database(os.environ, needed=args.organization is not None)
    return asyncio.run(command.export(args, config, clock.now()))


def _operator(
    module: str,
    work: str,
    settings: Callable[[Mapping[str, str]], Settings] = environment.of_service,
) -> Callable[[argparse.Namespace], int]:
    """A command of `gateway.operators`."""

    def run(args: argparse.Namespace) -> int:
        config = settings(os.environ)
        found = getattr(import_module(f"gateway.operators.{module}"), work)
        return int(asyncio.run(found(args, config)))

    return run


def _arguments(module: str, name: str) -> Callable[[argparse.ArgumentParser], None]:
    return lambda parser: getattr(import_module(f"gateway.operators.{module}"), name)(parser)


COMMANDS = {
    "up": Command("start everything; the servers too, unless their URLs are set", _up),
    "infrastructure": Command("start only Redis and Postgres", _infrastructure),
    "token": Command("print a token for the dev environment", _token, _token_arguments),
    "test": Command("run the tests: [GROUP...] [pytest options...]", lambda args: _test([])),
    "bench": Command(
        "measure speed and check correctness: --help", lambda args: _from_source("bench", [])
    ),
    "chaos": Command(
        "break everything under load and check that nothing is lost: --help",
        lambda args: _from_source("chaos", []),
    ),
    "migrate": Command("bring the database to this version", _migrate),
    "replay": Command("send the rows of a CSV file as usage records", _replay, _replay_arguments),
    "reconcile": Command(
        "compare rows, totals, seals and Redis counters",
        _operator("counts", "reconcile"),
        _arguments("counts", "add_reconcile_arguments"),
    ),
    "recalculate": Command(
        "make a user's or organisation's quotas anew from the rows",
        _operator("counts", "recalculate"),
        _arguments("counts", "add_recalculate_arguments"),
    ),
    "simulate": Command(
        "what past usage would have cost under a plan",
        _operator("simulate", "simulate", environment.of_database),
        _arguments("simulate", "add_arguments"),
    ),
    "backup": Command("write the ledger to an encrypted file", _backup, _backup_arguments),
    "restore": Command("bring a backup back", _restore, _restore_arguments),
    "export": Command(
        "write the records of one organisation to a folder", _export, _export_arguments
    ),
    "purge": Command(
        "archive and drop months of usage records that were kept long enough",
        _operator("purge", "purge", environment.of_database),
        _arguments("purge", "add_arguments"),
    ),
    "pseudonymise": Command(
        "take a user out of what need not be kept",
        _operator("pseudonymise", "pseudonymise"),
        _arguments("pseudonymise", "add_arguments"),
    ),
    "doctor": Command("check this installation and say what is wrong", _doctor),
    "dead-letters": Command(
        "entries that could not be written: list, retry, discard",
        _operator("letters", "dead_letters"),
        _arguments("letters", "add_arguments"),
    ),
    "stripe": Command(
        "calls to Stripe that wait for a person: parked, retry, skip",
        _operator("deliveries", "deliveries", environment.of_database),
        _arguments("deliveries", "add_arguments"),
    ),
    "audit": Command(
        "the hash chains over everything: verify, head",
        _operator("audit", "audit", environment.of_database),
        _arguments("audit", "add_arguments"),
    ),
    "accept-gap": Command(
        "go on although a restored database lacks usage that Redis no longer has",
        _operator("partitions", "accept_gap"),
        _arguments("partitions", "add_arguments"),
    ),
    "adopt-redis": Command(
        "believe a Redis that holds another history",
        _operator("partitions", "adopt_redis"),
        _arguments("partitions", "add_arguments"),
    ),
}


if __name__ == "__main__":
    sys.exit(main())
