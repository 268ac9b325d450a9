"""How much one run measures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench import wrk


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds; `quick` and `full` below are the two that people ask for."""

    rounds: int  # interleaved; medians need three
    long_s: float  # saturation and open loops
    short_s: float  # one mix
    raw_s: float  # Redis alone, per call size
    round_trips: int  # bare calls, one after the other
    copy_rows: int  # of the bare COPY
    accounts: int  # quotas in Redis for "many accounts"; 0 leaves that out
    search_steps: int  # of the saturation search; 0 leaves it out
    workers: bool
    append_only_off: bool  # the second durability setting
    peers: bool
    wrk: bool


QUICK = Options(
    rounds=3,
    long_s=2.0,
    short_s=0.7,
    raw_s=0.3,
    round_trips=500,
    copy_rows=50_000,
    accounts=20_000,
    search_steps=2,
    workers=True,
    append_only_off=False,
    peers=True,
    wrk=True,
)
FULL = msgspec.structs.replace(
    QUICK,
    long_s=6.0,
    short_s=3.0,
    raw_s=2.0,
    round_trips=5_000,
    copy_rows=200_000,
    accounts=1_000_000,
    search_steps=7,
    append_only_off=True,
)


class Request(msgspec.Struct, frozen=True):
    """What the command line asks for."""

    options: Options
    out: Path
    name: str
    install_peers: bool
    strict: bool
    keep: bool


def parse(argv: Sequence[str], data_dir: Path) -> Request:
    """The command line; ends the process with code 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="./run bench",
        description="Measures the gateway against its peers and its targets. "
        "The full run takes eleven minutes or so, and meanwhile 5 GB in DIR.",
    )
    parser.add_argument("--quick", action="store_true", help="two minutes, less exact")
    parser.add_argument("--rounds", type=int, metavar="N", help="interleaved rounds (3 or more)")
    parser.add_argument("--peers", action="store_true", help="install the npm peer first")
    parser.add_argument("--no-peers", action="store_true", help="the gateway alone")
    parser.add_argument("--no-wrk", action="store_true", help="our own generator everywhere")
    parser.add_argument(
        "--out", type=Path, default=data_dir / "bench", metavar="DIR", help="default %(default)s"
    )
    parser.add_argument("--strict", action="store_true", help="exit 1 for a missed target, too")
    parser.add_argument("--keep", action="store_true", help="keep servers' data and logs in DIR")
    args = parser.parse_args(argv)
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds: at least 1")
    options = QUICK if args.quick else FULL
    options = msgspec.structs.replace(
        options,
        rounds=args.rounds or options.rounds,
        peers=not args.no_peers,
        wrk=not args.no_wrk and wrk.program() is not None,
    )
    return Request(
        options,
        args.out.absolute(),
        "quick" if args.quick else "full",
        args.peers,
        args.strict,
        args.keep,
    )
