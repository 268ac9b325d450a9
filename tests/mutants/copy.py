"""A copy of the tree to break things in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "gateway",
    "ledger",
    "lua",
    "migrations",
    "bench",
    "chaos",
    "tests",
    "pyproject.toml",
    "run",
)


def copy_tree(target: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            shutil.copy(source, target / name)


def run_tests(tree: Path, paths: list[str], limit_s: int = 110) -> subprocess.CompletedProcess[str]:
    """Runs tests of a copied tree until the first that fails."""
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *paths]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=limit_s)
