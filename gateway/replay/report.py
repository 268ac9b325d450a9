"""What a replay did: counts, exact sums, request latencies, the summary and the progress bar."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from decimal import Context, Decimal, Inexact
from typing import TextIO

import msgspec

_REPORTED_PROBLEMS = 10
# Any sum of what the service takes fits; one that did not would raise instead of rounding.
_EXACT = Context(prec=400, traps=[Inexact])


class Sums(msgspec.Struct):
    """The quantities of one usage_type, by what became of them."""

    accepted: Decimal = Decimal(0)
    replayed: Decimal = Decimal(0)
    denied: Decimal = Decimal(0)


class Tally:
    """The running account. Every record ends in exactly one of the five outcomes."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._problems = 0
        self.rows = 0
        self.skipped = 0
        self.accepted = 0
        self.replayed = 0
        self.denied = 0
        self.rejected = 0
        self.unknown = 0
        self.sums: dict[str, Sums] = {}
        self.latencies = Latencies()

    @property
    def records(self) -> int:
        return self.accepted + self.replayed + self.denied + self.rejected + self.unknown

    @property
    def lossless(self) -> bool:
        """Nothing rejected, nothing unknown. A denial is an answer, not a loss."""
        return not (self.rejected or self.unknown)

    def accept(self, usage_type: str, quantity: Decimal) -> None:
        self.accepted += 1
        sums = self.sums.setdefault(usage_type, Sums())
        sums.accepted = _EXACT.add(sums.accepted, quantity)

    def repeat(self, usage_type: str, quantity: Decimal) -> None:
        """Counted before: by an earlier run, or by a request of this one whose answer was lost."""
        self.replayed += 1
        sums = self.sums.setdefault(usage_type, Sums())
        sums.replayed = _EXACT.add(sums.replayed, quantity)

    def deny(self, usage_type: str, quantity: Decimal) -> None:
        self.denied += 1
        sums = self.sums.setdefault(usage_type, Sums())
        sums.denied = _EXACT.add(sums.denied, quantity)

    def reject(self, problem: str, count: int = 1) -> None:
        self.rejected += count
        self._problems += 1
        if self._problems <= _REPORTED_PROBLEMS:
            self._progress.say(problem)
        elif self._problems == _REPORTED_PROBLEMS + 1:
            self._progress.say("more rejected records follow; they are counted, not listed")


class Latencies:
    """A histogram in constant memory; buckets grow by 2 %, so percentiles are within 1 %."""

    _GROWTH = math.log(1.02)
    _SMALLEST = 1e-5
    _BUCKETS = 1000

    def __init__(self) -> None:
        self._counts = [0] * self._BUCKETS
        self._total = 0

    def add(self, seconds: float) -> None:
        ratio = max(seconds, self._SMALLEST) / self._SMALLEST
        self._counts[min(int(math.log(ratio) / self._GROWTH), self._BUCKETS - 1)] += 1
        self._total += 1

    def milliseconds(self, percent: float) -> float | None:
        """The latency that ``percent`` of the requests did not exceed; none without requests."""
        seen, wanted = 0, max(1, math.ceil(self._total * percent / 100))
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                return 1000 * self._SMALLEST * math.exp((bucket + 0.5) * self._GROWTH)
        return None


class Summary(msgspec.Struct):
    """The end of a replay, as ``--json`` prints it; quantities are exact decimals."""

    identity: str
    complete: bool
    rows: int
    records: int
    skipped: int
    accepted: int
    replayed: int
    denied: int
    rejected: int
    unknown: int
    seconds: float
    records_per_second: float | None
    latency_ms: dict[str, float | None]
    quantities: dict[str, Sums]

    def as_json(self) -> str:
        return msgspec.json.Encoder(decimal_format="number").encode(self).decode()

    def as_text(self) -> str:
        lines = [f"identity   {self.identity}{'' if self.complete else '  (incomplete)'}"]
        for name in ("rows", "records", "accepted", "replayed", "denied", "rejected", "unknown"):
            lines.append(f"{name:<10} {getattr(self, name):,}")
        lines.append(f"skipped    {self.skipped:,}  (zero quantities)")
        rate = self.records_per_second
        lines.append(f"seconds    {self.seconds}" + (f"  ({rate:,} records/s)" if rate else ""))
        shown = (f"{name} {'-' if ms is None else ms}" for name, ms in self.latency_ms.items())
        lines.append(f"latency ms {'  '.join(shown)}")
        for usage_type, sums in self.quantities.items():
            shown = (f"{name} {getattr(sums, name):,f}" for name in sums.__struct_fields__)
            lines.append(f"{usage_type}: {', '.join(shown)}")
        return "\n".join(lines)


def summary(tally: Tally, identity: str, seconds: float, complete: bool) -> Summary:
    latency = {f"p{percent}": tally.latencies.milliseconds(percent) for percent in (50, 95, 99)}
    return Summary(
        identity=identity,
        complete=complete,
        rows=tally.rows,
        records=tally.records,
        skipped=tally.skipped,
        accepted=tally.accepted,
        replayed=tally.replayed,
        denied=tally.denied,
        rejected=tally.rejected,
        unknown=tally.unknown,
        seconds=round(seconds, 3),
        records_per_second=round(tally.records / seconds, 1) if seconds > 0 else None,
        latency_ms={name: value and round(value, 2) for name, value in latency.items()},
        quantities=dict(sorted(tally.sums.items())),
    )


class Progress:
    """One line on a terminal, redrawn in place; nothing at all when stderr is not one."""

    _WIDTH = 30
    _INTERVAL = 0.1

    def __init__(self, environ: Mapping[str, str], stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty() and environ.get("TERM") != "dumb"
        self._color = not environ.get("NO_COLOR")
        self._shown = 0
        self._next = -math.inf

    def say(self, line: str) -> None:
        """A line that stays."""
        self.clear()
        print(line, file=self._stream, flush=True)

    def show(self, now: float, fraction: float, tally: Tally) -> None:
        if not self._live or now < self._next:
            return
        self._next = now + self._INTERVAL
        filled = round(self._WIDTH * min(1.0, fraction))
        done, rest = "#" * filled, "." * (self._WIDTH - filled)
        counts = f"{fraction:4.0%}  {tally.records:,} records"
        for name in ("denied", "rejected"):
            if count := getattr(tally, name):
                counts += f", {count:,} {name}"
        text = f"[{done}{rest}] {counts}"
        pad = " " * max(0, self._shown - len(text))
        self._shown = len(text)
        bar = f"\x1b[32m{done}\x1b[0m{rest}" if self._color else f"{done}{rest}"
        print(f"\r[{bar}] {counts}{pad}", end="", file=self._stream, flush=True)

    def clear(self) -> None:
        if self._shown:
            print(f"\r{' ' * self._shown}\r", end="", file=self._stream, flush=True)
            self._shown = 0
