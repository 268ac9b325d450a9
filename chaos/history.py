"""Faults that take a part of Redis's history away, and what they took.

What callers were answered and Redis then lost before the ledger had it cannot be had back by any
protocol; it is noted, so that exactly that may be missing and nothing else.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

from chaos.check import System
from chaos.told import Told
from ledger import store
from lua import keys
from lua.packing import unpack_said

_MOST = 22  # powers of two, in bytes, that a bad disk may lose: half a second under full load

# As the append-only file spells them: an entry's event with its usage id in front, the end of a
# script, the beginning of one, and a server that was vouched for.
_EVENT = re.compile(rb"\$5\r\nevent\r\n\$\d+\r\n(.{16})", re.DOTALL)
_END, _BEGIN, _VOUCHED = b"\r\n$4\r\nEXEC\r\n", b"*1\r\n$5\r\nMULTI\r\n", b"vouched_from"


def cut_unanswered(folder: Path, told: Told, dice: random.Random) -> None:
    """A power loss: the file ends at any byte after the last script that anybody was answered for,
    because Redis answers only after its file is on the disk."""
    path = _file(folder)
    data = path.read_bytes()
    events = _EVENT.finditer(data)
    acked = max((found.end() for found in events if found[1] in told.acked), default=-1)
    answered = max(acked, data.rfind(_VOUCHED))
    _truncate(path, dice.randint(_script_end(data, answered), len(data)))


def cut_anywhere(folder: Path, told: Told, dice: random.Random) -> None:
    """A disk that lost what it had confirmed, a few bytes as often as what is long in the ledger.
    Vouching is left in place: a server that forgot it is of no known lineage, and waits for an
    operator."""
    path = _file(folder)
    data = path.read_bytes()
    lost = dice.randrange(2 ** dice.randint(1, _MOST))
    cut = max(len(data) - lost, _script_end(data, data.rfind(_VOUCHED)))
    told.lost |= {found[1] for found in _EVENT.finditer(data, _whole_until(data, cut))}
    _truncate(path, cut)


def _script_end(data: bytes, at: int) -> int:
    """Where the script that wrote something at a place ends, or a later one; the end of it all
    when there is no later one, the beginning for no place."""
    if at < 0:
        return 0
    end = data.find(_END, at)
    return len(data) if end < 0 else end + len(_END)


def _whole_until(data: bytes, cut: int) -> int:
    """Where the last whole script before a cut ends: Redis drops a torn one altogether."""
    begins, ends = data.rfind(_BEGIN, 0, cut), data.rfind(_END, 0, cut)
    return begins if begins > ends else cut


def size(folder: Path) -> int:
    """Bytes in the append-only file that is written to."""
    return _file(folder).stat().st_size


def _file(folder: Path) -> Path:
    """The append-only file that is written to: the newest, by its number."""
    files = folder.glob("appendonlydir/*.incr.aof")
    return max(files, key=lambda path: int(path.name.split(".")[-3]))


def _truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


async def flush(system: System, told: Told) -> None:
    """FLUSHALL; notes the entries that were only in Redis, read in the same moment."""
    cursors = await store.cursors(system.sql)
    pipeline = system.redis.client.pipeline(transaction=True)
    for cursor in cursors:
        pipeline.execute_command("XRANGE", keys.stream(cursor.partition), f"({cursor.last_id}", "+")
    pipeline.execute_command("FLUSHALL")
    *tails, _ = await pipeline.execute()
    for entries in tails:
        for _, fields in entries:
            if b"event" in fields:
                told.lost.add(unpack_said(fields[b"event"]).usage_id)
