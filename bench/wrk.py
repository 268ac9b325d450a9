"""The closed loop by wrk, where it is installed: written in C, it takes less from Redis, with
which it shares a core, than any loop in Python."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from pathlib import Path

from bench.generator import Sample
from bench.traffic import BASE, QUANTITY, USAGE_TYPE, Population
from bench.wires import Address

_SCRIPT = Path(__file__).with_name("wrk.lua")


class WrkError(Exception):
    """wrk did not end well; the message is its own."""


def program() -> str | None:
    return shutil.which("wrk")


def run(
    address: Address,
    population: Population,
    keys: str,
    token: str,
    *,
    seconds: float,
    connections: int,
) -> Sample:
    """Single records for so many seconds (wrk counts whole ones). Requests under way at the end
    are cut off: for as many as there are connections the outcome is unknown."""
    environ = {
        "PATH": os.environ.get("PATH", os.defpath),
        "BENCH_POPULATION": str(population.number),
        "BENCH_USERS": str(population.users),
        "BENCH_ORGANIZATIONS": str(population.organizations),
        "BENCH_KEYS": keys,
        "BENCH_PATH": f"{BASE}/usage",
        "BENCH_QUANTITY": str(QUANTITY),
        "BENCH_USAGE_TYPE": USAGE_TYPE,
        "BENCH_TOKEN": token,
    }
    host, port = address
    argv = [program() or "wrk", "--threads=1", f"--connections={connections}"]
    argv += [f"--duration={math.ceil(seconds)}s", f"--script={_SCRIPT}", f"http://{host}:{port}"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise WrkError((done.stderr or done.stdout).strip() or f"exit code {done.returncode}")
    requests, duration_us, refused, broken = map(int, lines[0].split()[1:])
    sample = Sample()
    sample.seconds = duration_us / 1e6
    sample.statuses[201] = requests - refused
    if refused:
        sample.statuses[0] = refused  # wrk does not say which
    sample.unknown = connections + broken
    return sample
