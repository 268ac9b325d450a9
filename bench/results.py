"""The figures of one run, the ratios between them and the targets they must meet."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

GATEWAY = "gateway"
HALF = "open loop at half of saturation"
SLOW_S, SLOW_RATE = 0.3, 2_000  # several times what such a Redis can take
SLOW = f"slow Redis (+{SLOW_S * 1000:.0f} ms), {SLOW_RATE:,} requests/s"
SLO_MS = 100.0  # p99 that the service promises


class Figure(msgspec.Struct):
    """One thing measured, once per round."""

    unit: str
    values: list[float] = msgspec.field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


class Point(msgspec.Struct, frozen=True):
    """One open loop: offered requests/s, and percentiles of the latency in ms."""

    rate: int
    achieved: float
    p50: float
    p95: float
    p99: float
    p999: float
    failed: int  # answers that were not 2xx, and requests never answered

    @property
    def holds(self) -> bool:
        """Whether the service keeps its promise at that rate."""
        return self.p99 <= SLO_MS and self.failed == 0


class Check(msgspec.Struct, frozen=True):
    """Something that must hold, and what was seen."""

    text: str
    holds: bool
    seen: str


class Target(msgspec.Struct, frozen=True):
    """`wanted` is the least (or most) the median of `values` may be; without values it was not
    measured, and `missing` says why."""

    name: str
    text: str
    wanted: float
    at_least: bool
    values: list[float]
    unit: str = "x"
    missing: str = "not measured in this run"

    @property
    def met(self) -> bool | None:
        if not self.values:
            return None
        seen = median(self.values)
        return seen >= self.wanted if self.at_least else seen <= self.wanted


class Results(msgspec.Struct):
    """Everything one run found out; figures by group and name, in the order of measuring."""

    about: dict[str, str] = msgspec.field(default_factory=dict)
    figures: dict[str, dict[str, Figure]] = msgspec.field(default_factory=dict)
    search: list[Point] = msgspec.field(default_factory=list)
    curve: list[tuple[float, float]] = msgspec.field(default_factory=list)  # percent, ms
    missing: dict[str, str] = msgspec.field(default_factory=dict)  # peer: how to install it
    notes: list[str] = msgspec.field(default_factory=list)
    checks: list[Check] = msgspec.field(default_factory=list)

    def add(self, group: str, name: str, unit: str, value: float) -> None:
        """One round's value."""
        figures = self.figures.setdefault(group, {})
        figures.setdefault(name, Figure(unit)).values.append(value)

    def values(self, group: str, name: str) -> list[float]:
        figure = self.figures.get(group, {}).get(name)
        return [] if figure is None else figure.values

    @property
    def correct(self) -> bool:
        return bool(self.checks) and all(check.holds for check in self.checks)


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Round by round, because what disturbs a round disturbs both; of the medians when one was
    measured more often than the other. Empty when either is missing."""
    if not over or not under or not all(under):
        return []
    if len(over) == len(under):
        return [a / b for a, b in zip(over, under, strict=True)]
    return [median(over) / median(under)]


def fastest(figures: dict[str, Figure]) -> list[float]:
    """The values of the figure with the greatest median."""
    return max(figures.values(), key=lambda one: one.median).values if figures else []


def targets(results: Results) -> list[Target]:
    """P1 to P5, as far as this run measured them."""
    own = results.values("saturation, fsync always", GATEWAY)

    def against(peer: str, wanted: float) -> Target:
        return Target(
            "P1",
            f"single record against {peer}",
            wanted,
            True,
            ratios(own, results.values("saturation, fsync always", peer)),
            missing=f"{peer} is not installed: {results.missing.get(peer, 'not asked for')}",
        )

    def most(name: str, text: str, wanted: float, unit: str, group: str, figure: str) -> Target:
        return Target(name, text, wanted, False, results.values(group, figure), unit)

    drain = results.values("ledger", "drain")
    limit = fastest(results.figures.get("redis alone", {}))
    return [
        against("nginx", 1.0),
        against("fastify", 1.3),
        against("naive", 2.5),
        Target(
            "P2",
            "batch of 100 against the limit of Redis itself",
            0.7,
            True,
            ratios(results.values("mixes", "batch of 100"), limit),
        ),
        most("P3", "p50 at half of saturation", 1.0, "ms", HALF, "p50"),
        most("P3", "p95 at half of saturation", 3.0, "ms", HALF, "p95"),
        most("P3", "p99 at half of saturation", 10.0, "ms", HALF, "p99"),
        Target(
            "P4",
            "drain against raw COPY",
            0.3,
            True,
            ratios(drain, results.values("ledger", "raw COPY")),
        ),
        Target("P4", "drain against one gateway core, one by one", 1.5, True, ratios(drain, own)),
        most("slow Redis", "p99 of the 503s", 400, "ms", SLOW, "p99 of the 503s"),
        most("P5", "Redis bytes of an undrained event", 300, "B", "memory", "undrained event"),
        most("P5", "Redis bytes of a receipt", 96, "B", "memory", "receipt"),
        most("P5", "memory of a gateway worker", 90, "MB", "memory", "gateway worker"),
        Target(
            "P5",
            "many accounts against 1 k accounts",
            0.9,
            True,
            ratios(results.values("accounts", "many"), results.values("accounts", "1 k")),
        ),
    ]
