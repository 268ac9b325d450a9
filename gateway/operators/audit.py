"""``./run audit``: are the chains whole, and where are they now."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from gateway.operators.session import DONE, FOUND, WRONG_USAGE, Session, answer, fail
from ledger import clock
from ledger.audit import heads, verify
from ledger.audit.heads import BadHead, SignedHeads
from ledger.settings import Settings

MOST_BYTES = 1_000_000  # of a file of heads: a thousand partitions take a tenth of it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``./run audit``."""
    work = parser.add_subparsers(dest="work", required=True, metavar="verify|head")
    checked = work.add_parser("verify", help="recompute every hash chain from the rows")
    checked.add_argument("--json", action="store_true", help="print JSON")
    checked.add_argument(
        "--head", metavar="FILE", type=Path, help="a signed head: was a chain cut off since?"
    )
    checked.add_argument(
        "--key", metavar="FILE", type=Path, help="the public key of the head, instead of ours"
    )
    checked.epilog = "Exit codes: 0 all holds, 1 could not be looked at, 3 something does not fit."
    work.add_parser("head", help="print where every chain is, as one signed line to keep elsewhere")


async def audit(args: argparse.Namespace, config: Settings) -> int:
    """Runs ``./run audit``; the exit code."""
    if args.work == "head":
        return await answer(config, _head)
    try:
        signed = None if args.head is None else _signed(args, config)
    except BadHead as error:
        return fail(str(error), WRONG_USAGE)
    return await answer(config, lambda session: _verify(session, args, signed), patient=True)


async def _head(session: Session) -> int:
    key = heads.signing_key(session.settings)
    if key is None:
        return fail("AUDIT_SIGNING_KEY: is required to sign a head", WRONG_USAGE)
    print(heads.sign(await heads.now(session.connection, clock.now()), key))
    return DONE


async def _verify(session: Session, args: argparse.Namespace, signed: SignedHeads | None) -> int:
    report = await verify.whole(session.connection, signed)
    print(msgspec.json.encode(report).decode() if args.json else verify.text(report))
    return FOUND if report.findings else DONE


def _signed(args: argparse.Namespace, config: Settings) -> SignedHeads:
    key = heads.signing_key(config) if args.key is None else heads.public_key(args.key)
    if key is None:
        raise BadHead("--head: needs AUDIT_SIGNING_KEY, or --key with the public key")
    try:
        with args.head.open(encoding="utf-8") as file:
            line = file.read(MOST_BYTES)
    except (OSError, UnicodeDecodeError):
        raise BadHead("--head: the file cannot be read") from None
    try:
        return heads.read(line, key)
    except BadHead as error:
        raise BadHead(f"--head: {error}") from None
