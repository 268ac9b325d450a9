"""The benchmark: `./run bench`. Nothing in the product imports it.

- `command`     options in; table, picture and JSON out
- `session`     the order of everything that is measured in one run
- `stages`      one measurement each
- `rig`         the servers and programs under test; `processes` and `cpus` how they are started
- `accounts`    plans, subscriptions and quotas of those who send
- `loads`       one load on one process: by `generator` over `wires`, or by `wrk` where installed
- `histogram`   percentiles of latencies at any magnitude
- `traffic`     the requests of each mix
- `raw`         what Redis alone can do
- `drainage`    what the ledger and a bare COPY can do
- `peers`       other gateways, driven by the same requests
- `check`       was every accepted unit kept, once?
- `results`     figures, ratios and targets; `report` and `picture` show them
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark. 0: done; 1: a unit was lost or doubled, or `--strict` and a target was
    missed; 2: wrong usage."""
    from bench import command

    return command.main(argv)
