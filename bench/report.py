"""The run as text: one table a person reads, one JSON a program reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

import msgspec

from bench.results import GATEWAY, SLO_MS, Figure, Point, Results, Target, ratios, targets

_LABELS = {
    GATEWAY: "this gateway (auth, validation, receipts, pools, metrics)",
    "nginx": "nginx + LuaJIT + lua-nginx-redis",
    "fastify": "Node: fastify + ioredis autopipelining",
    "naive": "naive aiohttp, one EVALSHA per request",
}
_READING = (
    "Only ratios within one run mean anything. Peers run the counting script and nothing else: no "
    "tokens, no plans, no ledger. The ledger rests while requests are measured and is measured "
    "afterwards, but for the row that says otherwise."
)


def markdown(results: Results) -> str:
    return "\n".join(
        [
            "# Benchmark",
            "",
            *(f"- {name}: {value}" for name, value in results.about.items()),
            "",
            _READING,
            "",
            *_targets(targets(results)),
            *_saturation(results),
            *_others(results),
            *_search(results.search),
            *_checks(results),
            *(f"- {note}" for note in results.notes),
        ]
    )


def as_json(results: Results) -> bytes:
    """Every value of every round, and the targets with what was measured."""
    document = msgspec.to_builtins(results)
    document["targets"] = [
        {**msgspec.to_builtins(target), "met": target.met} for target in targets(results)
    ]
    return msgspec.json.format(msgspec.json.encode(document), indent=2)


def verdict(met: bool | None) -> str:
    return {True: "met", False: "NOT MET", None: "not measured"}[met]


def _targets(found: Sequence[Target]) -> Iterator[str]:
    yield "## Targets"
    yield ""
    yield from _header("", "target", "wanted", "measured (range)", "")
    for one in found:
        sign = ">=" if one.at_least else "<="
        measured = _spread(one.values, one.unit) if one.values else one.missing
        wanted = f"{sign} {_number(one.wanted)} {one.unit}"
        yield _row(one.name, one.text, wanted, measured, verdict(one.met))
    yield ""


def _saturation(results: Results) -> Iterator[str]:
    for group, figures in results.figures.items():
        if not group.startswith("saturation"):
            continue
        setting = group.partition(", ")[2]
        cpu = results.figures.get(f"CPU per request, {setting}", {})
        redis = results.figures.get(f"Redis CPU per request, {setting}", {})
        yield f"## One core, one record per request, {setting}"
        yield ""
        yield from _header(
            "server", "requests/s (range)", "this gateway is", "CPU us/request", "its Redis"
        )
        for name, figure in figures.items():
            share = ratios(figures[GATEWAY].values, figure.values) if name != GATEWAY else []
            yield _row(
                _LABELS.get(name, name),
                _spread(figure.values),
                _spread(share, "x") if share else "",
                _number(cpu[name].median) if name in cpu else "",
                _number(redis[name].median) if name in redis else "",
            )
        for name, install in results.missing.items():
            yield _row(_LABELS.get(name, name), "not installed", "", install, "")
        yield ""


def _others(results: Results) -> Iterator[str]:
    for group, figures in results.figures.items():
        if group.startswith(("saturation", "CPU per request, ", "Redis CPU per request, ")):
            continue
        yield f"## {group[0].upper()}{group[1:]}"
        yield ""
        yield from _header("", "median (range)")
        for name, figure in figures.items():
            yield _row(name, _of(figure))
        yield ""


def _search(points: Sequence[Point]) -> Iterator[str]:
    if not points:
        return
    yield "## Saturation search (open loop, latency from the intended start)"
    yield ""
    yield from _header(
        "offered/s", "answered/s", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms", "failed"
    )
    for one in points:
        times = map(_number, (one.p50, one.p95, one.p99, one.p999))
        yield _row(str(one.rate), _number(one.achieved), *times, str(one.failed))
    yield ""
    kept = [one.rate for one in points if one.holds]
    yield f"Highest rate tried with p99 within {_number(SLO_MS)} ms: " + (
        f"{max(kept):,} requests/s." if kept else "none."
    )
    yield ""


def _checks(results: Results) -> Iterator[str]:
    yield "## Correctness"
    yield ""
    yield from _header("must hold", "seen", "")
    for check in results.checks:
        yield _row(check.text, check.seen, "holds" if check.holds else "BROKEN")
    yield ""


def _of(figure: Figure) -> str:
    return _spread(figure.values, figure.unit)


def _spread(values: Sequence[float], unit: str = "") -> str:
    """The median, and the range when there is one."""
    text = f"{_number(median(values))} {unit}".rstrip()
    if len(values) > 1:
        text += f" ({_number(min(values))} to {_number(max(values))})"
    return text


def _number(value: float) -> str:
    """Three digits are all that a benchmark knows; more only of large whole numbers."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _header(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield _row(*("---" for _ in names))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
