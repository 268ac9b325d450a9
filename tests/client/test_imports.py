"""The client brings in aiohttp and nothing of the service."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVER_ONLY = {
    "asyncpg",
    "hiredis",
    "jinja2",
    "joserfc",
    "ledger",
    "lua",
    "msgspec",
    "prometheus_client",
    "redis",
    "structlog",
    "uvloop",
}


def test_importing_the_client_imports_nothing_of_the_service() -> None:
    program = "import sys, gateway.client; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "aiohttp" in loaded
    assert not SERVER_ONLY & {name.partition(".")[0] for name in loaded}
    ours = {name for name in loaded if name.partition(".")[0] == "gateway"}
    assert {name for name in ours if not name.startswith("gateway.client")} == {"gateway"}


def test_every_public_name_exists() -> None:
    import gateway.client

    assert all(hasattr(gateway.client, name) for name in gateway.client.__all__)
