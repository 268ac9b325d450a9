"""The command: plays episodes until its time or their number is over, or something is broken."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import msgspec
import uvloop

from chaos import accounts
from chaos.check import Chains
from chaos.clients import Clients
from chaos.episode import play
from chaos.report import Line, Report
from chaos.schedule import FAULTS_PER_EPISODE, KINDS, Episode, Kinds, chosen, episodes
from chaos.stand import Stand
from chaos.told import Told
from gateway.children import StartError
from ledger import clock, logs
from ledger.settings import SettingError

# Then a new stand, with empty servers: each check looks at all that its stand ever recorded.
_EPISODES_OF_A_STAND = 5
_ENDLESS = 10**9
_RATE = 10_000  # records a second; about what two cores take with nothing broken


class Options(msgspec.Struct, frozen=True):
    seed: int
    first: int
    episodes: int
    seconds: float | None
    faults_at_least: int
    events_at_least: int
    kinds: Kinds
    size: int
    rate: int
    keep: bool
    json: bool
    folder: Path

    @property
    def bounded(self) -> bool:
        """Whether it ends when enough has happened."""
        return bool(self.faults_at_least or self.events_at_least)


def main(argv: Sequence[str]) -> int:
    """See `chaos.main`."""
    options = _parse(argv, Path(os.environ.get("BILLING_DATA_DIR", "").strip() or ".data"))
    logs.configure("error")  # ours alone: the programs log as they always do
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        report = uvloop.run(run(options))
    except (StartError, SettingError, OSError) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if options.json:
        sys.stdout.buffer.write(report.as_json() + b"\n")
    else:
        print(report)
    return 0 if report.sound else 1


async def run(options: Options) -> Report:
    """Plays the schedule; ends early when something is broken, or when as much has happened as
    was asked for."""
    began = clock.monotonic()
    lines: list[Line] = []
    kept = None
    schedule = islice(
        episodes(options.seed, options.kinds, options.size),
        options.first - 1,
        options.first - 1 + options.episodes,
    )

    def report() -> Report:
        return Report(
            seed=options.seed,
            lines=lines,
            seconds=round(clock.monotonic() - began, 1),
            faults_at_least=options.faults_at_least,
            events_at_least=options.events_at_least,
            kept=kept,
        )

    def goes_on() -> bool:
        in_time = options.seconds is None or clock.monotonic() - began < options.seconds
        return in_time and not (options.bounded and report().enough)

    while (
        kept is None and goes_on() and (next_ones := list(islice(schedule, _EPISODES_OF_A_STAND)))
    ):
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=options.folder)).absolute()
        try:
            async with Stand(folder) as stand:
                clients = await _furnish(stand, options.rate)
                seals: Chains = {}
                for episode in next_ones:
                    if not goes_on():
                        break
                    _say(options, f"episode {episode.number}: {_plan(episode)}")
                    lines.append(await play(stand, clients, seals, episode, options.seed))
                    _say(options, str(lines[-1]))
                    if lines[-1].violations:
                        kept = str(folder)
                        break
        except BaseException:
            _say(options, f"logs and data: {folder}")
            raise
        if kept is None and not options.keep:
            shutil.rmtree(folder)
    return report()


async def _furnish(stand: Stand, rate: int) -> Clients:
    async with stand.opened() as system:
        await accounts.add_plans(system.sql)
    return Clients(Told(), rate)


def _plan(episode: Episode) -> str:
    return ", ".join(
        f"{one} at {one.at_ms / 1000:.1f} for {one.hold_ms / 1000:.1f} s" for one in episode.faults
    )


def _say(options: Options, line: str) -> None:
    print(line, file=sys.stderr if options.json else sys.stdout, flush=True)


def _parse(argv: Sequence[str], data_dir: Path) -> Options:
    """The command line; ends the process with code 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="./run chaos",
        description="Kills, freezes and unplugs everything under load, and checks that no unit is "
        "lost, doubled or past its limit. Real servers, on loopback, of its own.",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of the schedule; default any")
    parser.add_argument("--minutes", type=float, metavar="M", help="begin no episode after that")
    parser.add_argument(
        "--faults-at-least", type=_positive, default=0, metavar="N", help="end there, or fail"
    )
    parser.add_argument(
        "--events-at-least", type=_positive, default=0, metavar="N", help="end there, or fail"
    )
    parser.add_argument("--episodes", type=_positive, metavar="K", help="default 10, or any number")
    parser.add_argument("--first", type=_positive, default=1, metavar="N", help="skip those before")
    parser.add_argument(
        "--faults", metavar="A,B", help=f"only these, such as kill:redis: {', '.join(KINDS)}"
    )
    parser.add_argument(
        "--size", type=_positive, default=FAULTS_PER_EPISODE, metavar="N", help="faults an episode"
    )
    parser.add_argument(
        "--rate", type=_positive, default=_RATE, metavar="N", help="records a second (%(default)s)"
    )
    parser.add_argument("--keep", action="store_true", help="keep logs and data of all episodes")
    parser.add_argument("--json", action="store_true", help="the report as JSON on stdout")
    args = parser.parse_args(argv)
    try:
        kinds = chosen(args.faults.split(",")) if args.faults else KINDS
    except ValueError as error:
        parser.error(f"--faults: no such fault: {error}; there are {', '.join(KINDS)}")
    ends_otherwise = args.minutes or args.faults_at_least or args.events_at_least
    return Options(
        random.randrange(1_000_000) if args.seed is None else args.seed,
        args.first,
        args.episodes or (_ENDLESS if ends_otherwise else 10),
        None if args.minutes is None else 60 * args.minutes,
        args.faults_at_least,
        args.events_at_least,
        kinds,
        args.size,
        args.rate,
        args.keep,
        args.json,
        data_dir / "chaos",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
