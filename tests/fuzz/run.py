"""Runs schemathesis by the OpenAPI document, against everything that `./run` starts."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from gateway.dev.tokens import dev_key
from tests.dev.processes import environment, supervisor
from tests.security.tokens import claims, encoded

HERE = Path(__file__).parent
# Who asks without a token is somebody in dev, where this name is not this machine's.
HOST = "billing.test"
_LONGEST_S = 3600  # of a run
SUBSCRIPTION = {"user_id": "ada", "organization_id": "acme", "plan_tier": "professional"}


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A run of schemathesis with all its checks; what it says is in `stdout`."""
    port = _free_port()
    environ = environment(folder, PORT=str(port))
    with supervisor(environ=environ) as service:
        service.read_until("billing is ready: ")
        roles = ["service", "finance", "admin"]
        said = claims(roles=roles, org="*", exp=int(time.time()) + _LONGEST_S)
        token = encoded(dev_key(folder), said)
        _bill(port, token)
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                *("--config-file", str(HERE / "schemathesis.toml")),
                *("run", f"http://127.0.0.1:{port}/openapi.json"),
                *("--header", f"Authorization: Bearer {token}", "--header", f"Host: {HOST}"),
                *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
                *("--no-color", "--max-failures", "20", *options),
            ],
            cwd=folder,
            env={**environ, "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert service.end(signal.SIGTERM) == 0, "the service outlives it"
    return done


def _bill(port: int, token: str) -> None:
    """A subscription, whose first invoice the ledger makes at once."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    path = "/api/v1/billing/subscriptions"
    connection.request("POST", path, json.dumps(SUBSCRIPTION), headers)
    assert connection.getresponse().status == 201
    connection.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
