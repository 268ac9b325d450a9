"""`./run chaos` as a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "BILLING_DATA_DIR": str(tmp_path)}
    return subprocess.run(
        [sys.executable, "-P", "-m", "chaos", *options],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
