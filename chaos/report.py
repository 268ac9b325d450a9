"""What is printed: a line per episode, and what it all came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

import msgspec


class Return(msgspec.Struct, frozen=True):
    """How soon all was well again after a fault. `loading_s`: what Redis took to start before it
    answered, which is not in `seconds`. `alone`: nothing else was broken meanwhile, nor shortly
    before. `refusals`: what was answered until then, and how often."""

    fault: str
    seconds: float
    loading_s: float
    alone: bool
    refusals: dict[str, int]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one episode. Counts are the episode's own, but `lost`, which its stand's whole
    history has lost by faults that no protocol survives. Seconds: `back_s` from the end of the
    last fault until the gateway was ready, `drained_s` from the end of the load until all was in
    the ledger; -1 where that never happened. `taken`: until a record was accepted on each partition
    again, from the moment in which Redis answered; `drained`: until the ledgers that were left had
    all that was in the streams when one of them was killed or frozen."""

    episode: int
    faults: list[str]
    events: int
    acked: int
    unknown: int
    outcomes: dict[str, int]
    lost: int
    back_s: float
    drained_s: float
    seconds: float
    taken: list[Return]
    drained: list[Return]
    violations: list[str]

    def __str__(self) -> str:
        verdict = "BROKEN" if self.violations else "ok"
        return (
            f"episode {self.episode:3d}  {verdict:6s} {self.events:6d} events"
            f" {self.acked:6d} acked {self.unknown:5d} unknown  back {self.back_s:5.2f} s"
            f"  drained {self.drained_s:5.2f} s  {' '.join(self.faults)}"
        )


class Report(msgspec.Struct, frozen=True, kw_only=True):
    seed: int
    lines: Sequence[Line]
    seconds: float
    faults_at_least: int = 0  # both as asked for
    events_at_least: int = 0
    kept: str | None = None  # where logs and data are

    @property
    def sound(self) -> bool:
        return self.enough and not self.broken

    @property
    def broken(self) -> bool:
        return any(line.violations for line in self.lines)

    @property
    def faults(self) -> int:
        return sum(len(line.faults) for line in self.lines)

    @property
    def events(self) -> int:
        return sum(line.events for line in self.lines)

    @property
    def enough(self) -> bool:
        """Whether as much has happened as was asked for."""
        return self.faults >= self.faults_at_least and self.events >= self.events_at_least

    def as_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self))

    def __str__(self) -> str:
        faults = Counter(one.partition(":")[0] for line in self.lines for one in line.faults)
        back = sorted(line.back_s for line in self.lines if line.back_s >= 0) or [0.0]
        text = [
            f"seed {self.seed}: {len(self.lines)} episodes, {self.faults} faults,"
            f" {self.events} events in {self.seconds:.0f} s"
            f" ({self.events / max(self.seconds, 1):.0f} a second),"
            f" {sum(line.unknown for line in self.lines)} never known to their callers",
            "faults: " + ", ".join(f"{kind} {number}" for kind, number in sorted(faults.items())),
            f"back in service after {median(back):.2f} s (median), {back[-1]:.2f} s (longest)",
            *_said("usage taken after Redis answered", (line.taken for line in self.lines)),
            *_said("drained after a ledger was gone", (line.drained for line in self.lines)),
        ]
        for line in self.lines:
            text += [f"episode {line.episode}: {one}" for one in line.violations]
            if line.violations:
                text.append(
                    f"to replay: ./run chaos --seed {self.seed} --first {line.episode} --episodes 1"
                )
        if self.kept:
            text.append(f"logs and data: {self.kept}")
        if not self.enough:
            text.append(
                f"TOO LITTLE: {self.faults_at_least} faults and {self.events_at_least} events were"
                " asked for"
            )
        text.append("BROKEN" if self.broken else "every invariant held")
        return "\n".join(text)


def _said(what: str, of_lines: Iterable[Sequence[Return]]) -> list[str]:
    """Only those with nothing else broken say something of the service."""
    returns = [one for line in of_lines for one in line]
    alone = sorted((one for one in returns if one.alone), key=lambda one: one.seconds)
    if not alone:
        return []
    late, longest = alone[min(len(alone) - 1, len(alone) * 95 // 100)], alone[-1]
    loading = max(one.loading_s for one in returns)
    return [
        f"{what}: {len(alone)} of {len(returns)} with nothing else broken,"
        f" {median(one.seconds for one in alone):.2f} s (median),"
        f" {late.seconds:.2f} s (95 of 100), {longest.seconds:.2f} s (longest, {longest.fault})"
        + (f"; Redis took up to {loading:.2f} s to start" if loading else "")
    ]
