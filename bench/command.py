"""The command: measures, writes DIR/results.json, table.md and latency.png, prints the table."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import options, peers, report
from bench.drainage import DrainError
from bench.options import Request
from bench.results import Results, targets
from bench.session import measure
from bench.stages import NotServing
from bench.wrk import WrkError
from gateway.children import StartError
from ledger import clock, logs


def main(argv: Sequence[str]) -> int:
    """See `bench.main`."""
    data_dir = Path(os.environ.get("BILLING_DATA_DIR", "").strip() or ".data")
    request = options.parse(argv, data_dir)
    request.out.mkdir(parents=True, exist_ok=True)
    progress = _Progress()
    logs.configure("error")  # ours alone: the programs under test log as they always do
    try:
        results = _measure(request, progress)
    except (DrainError, NotServing, StartError, WrkError, subprocess.CalledProcessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    (request.out / "results.json").write_bytes(report.as_json(results))
    table = report.markdown(results)
    (request.out / "table.md").write_text(table + "\n")
    print(table)
    try:
        from bench import picture

        picture.draw(results, request.out / "latency.png")
    except ImportError:
        progress("no picture: matplotlib is not installed")
    progress(f"written to {request.out}")
    missed = any(target.met is False for target in targets(results))
    return 1 if not results.correct or (request.strict and missed) else 0


def _measure(request: Request, progress: _Progress) -> Results:
    cache = request.out / "peers"
    if request.install_peers:
        progress("installing the npm peer")
        peers.install_fastify(cache)
    found = peers.peers(cache) if request.options.peers else []
    # Beside the results, not in a memory file system: fsync must cost what a disk costs.
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=request.out))
    try:
        return asyncio.run(measure(folder, request.options, found, progress))
    finally:
        if not request.keep:
            shutil.rmtree(folder, ignore_errors=True)


class _Progress:
    """Lines on stderr with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = clock.monotonic()

    def __call__(self, text: str) -> None:
        seconds = clock.monotonic() - self._began
        print(f"bench: {seconds:5.0f} s  {text}", file=sys.stderr, flush=True)
