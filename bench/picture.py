"""The run as a picture: who admits how much, and how long a caller waits."""

from __future__ import annotations

from pathlib import Path

from bench.results import GATEWAY, SLO_MS, Results

_OWN, _OTHER = "#1f6f54", "#9aa5b1"


def draw(results: Results, path: Path) -> None:
    """Writes a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (bars, percentiles, search) = pyplot.subplots(1, 3, figsize=(15, 4.5))

    measured = results.figures.get("saturation, fsync always", {})
    names = list(reversed(measured))
    medians = [measured[name].median for name in names]
    spread = [
        [measured[name].median - measured[name].low for name in names],
        [measured[name].high - measured[name].median for name in names],
    ]
    colors = [_OWN if name == GATEWAY else _OTHER for name in names]
    bars.barh(names, medians, xerr=spread, color=colors)
    bars.set_title("single records per second, one core, fsync always")

    # Percentiles by their distance from 100: the tail is what the picture is for.
    curve = [(percent, ms) for percent, ms in results.curve if percent < 100]
    percentiles.plot([100 / (100 - p) for p, _ in curve], [ms for _, ms in curve], color=_OWN)
    percentiles.set_xscale("log")
    percentiles.set_xticks([1, 2, 10, 100, 1000, 10000], ["0", "50", "90", "99", "99.9", "99.99"])
    percentiles.set_xlabel("percent of requests")
    percentiles.set_ylabel("ms")
    percentiles.set_ylim(bottom=0)
    percentiles.set_title("latency at half of saturation")

    rates = [point.rate for point in results.search]
    for name, values in {
        "p50": [point.p50 for point in results.search],
        "p95": [point.p95 for point in results.search],
        "p99": [point.p99 for point in results.search],
    }.items():
        search.plot(rates, values, marker="o", label=name)
    search.axhline(SLO_MS, color="black", linewidth=0.8, linestyle=":", label="promise for p99")
    search.set_yscale("log")
    search.set_xlabel("offered requests per second")
    search.set_ylabel("ms")
    search.set_title("latency by fixed rate")
    search.legend()

    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
