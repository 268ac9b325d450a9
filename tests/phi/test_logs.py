"""The last net: a log line loses the words that identify a person, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import logging, structlog
from ledger import logs

logs.configure("info")
log = structlog.get_logger()
log.info("began", at="2026-11-22T08:18:26Z", server="10.20.30.40:6379", url="http://10.20.30.40/x",
         user_id="01a20255-c9e5-72ee-a80c-079130b4c9bb", partition=3, none=None)
log.warning("odd_text", detail="ssn 219-09-9137 of ada@example.com was sent",
            many=["fine", {"within": "mrn 1234567"}], thing=ValueError("born 1961-04-12"))
try:
    raise ValueError("no row for ada@example.com")
except ValueError:
    log.exception("failed")
logging.getLogger("library").warning("cannot reach %s", "ada@example.com")
"""


def test_a_log_line_loses_what_identifies_a_person_at_every_level() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    began, odd, failed, library = map(json.loads, done.stdout.splitlines())
    assert (
        began.items()
        >= {
            "event": "began",
            "at": "2026-11-22T08:18:26Z",
            "server": "10.20.30.40:6379",
            "url": "http://10.20.30.40/x",
            "user_id": "01a20255-c9e5-72ee-a80c-079130b4c9bb",
            "partition": 3,
            "none": None,
        }.items()
    )
    assert odd["detail"] == "[redacted] of [redacted] was sent"
    assert odd["many"] == ["fine", {"within": "[redacted]"}]
    assert failed["exception"].splitlines()[-1] == "ValueError: no row for [redacted]"
    assert library["event"] == "cannot reach [redacted]"
    for secret in ("219-09", "ada@", "1234567", "1961"):
        assert secret not in done.stdout + done.stderr
    assert all(one["timestamp"].endswith("Z") for one in (began, odd, failed, library))
