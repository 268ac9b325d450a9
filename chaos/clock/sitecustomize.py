"""Imported by Python as it starts, where this folder is on its path (see `chaos.stand`).
Sets the clock of the process off by as many seconds as the file says that `CHAOS_CLOCK` names."""

import os
from datetime import timedelta
from pathlib import Path

from ledger import clock

_off = timedelta(seconds=int(Path(os.environ["CHAOS_CLOCK"]).read_text()))
_now = clock.now
clock.now = lambda: _now() + _off
clock.now_ms = lambda: int(clock.now().timestamp() * 1000)
