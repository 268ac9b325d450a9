"""The chaos runner: `./run chaos`. Nothing in the product imports it.

- `command`   options in; lines, summary or JSON out
- `schedule`  which faults happen when, by the seed alone
- `episode`   load, faults, healing, questions: the order of it
- `stand`     the real processes, and the relays between them
- `faults`    what each kind of fault does; `network` those of connections, `history` those that
              take data away
- `rewind`    Postgres as it was a moment ago; `clock` a gateway whose clock is off
- `returns`   how soon all is well again after a fault
- `clients`   callers that retry, replay and give up; `accounts` who they send for
- `told`      what they were told
- `check`     what must hold, asked of Redis and Postgres
- `report`    what is printed
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Runs the chaos. 0: everything held; 1: something is broken, or does not start; 2: wrong
    usage."""
    from chaos import command

    return command.main(argv)
