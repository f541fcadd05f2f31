"""Runs every expression of the Grafana dashboard on a Prometheus server; draws the first row.

    python bench/dashboard.py --prometheus http://127.0.0.1:9090 [--last 3600] [--picture row.png]

Prints the number of series of each panel. Exits with 1 if a panel has no series or Prometheus
refuses an expression. `--optional vllm:` allows panels with `vllm:` in an expression to be empty.
The picture is drawn with matplotlib (`rankd[eval]`) and looks different from Grafana's.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHBOARD = Path(__file__).parent.parent / "deploy/grafana/dashboards/rankd.json"

# Distinguishable with red-green colour blindness.
COLOURS = ["#0b6e99", "#e0a458", "#5aa469", "#a14a76", "#6c757d", "#c1666b", "#7d80da", "#b5b35c"]

# Points per curve, as Grafana requests for a panel of this width.
POINTS = 300


@dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        times: in seconds since 1970.
        values: NaN without data.
    """

    name: str
    times: list[float]
    values: list[float]


@dataclass(frozen=True)
class Span:
    """The time that a dashboard shows, in seconds."""

    start: float
    end: float

    @property
    def step(self) -> float:
        return max(1.0, (self.end - self.start) / POINTS)

    def filled(self, expr: str, rate: float) -> str:
        """Replace Grafana's variables, with all servers selected.

        Args:
            rate: `$__rate_interval` in seconds.
        """
        for variable, value in {
            "$__rate_interval": f"{math.ceil(max(rate, self.step))}s",
            "$__interval": f"{math.ceil(self.step)}s",
            "$__range": f"{math.ceil(self.end - self.start)}s",
            "$job": ".*",
            "$instance": ".*",
        }.items():
            expr = expr.replace(variable, value)
        return expr


def panels(dashboard: Path = DASHBOARD) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every panel with expressions, and the title of its row."""
    row = ""
    for panel in json.loads(dashboard.read_text(encoding="utf-8"))["panels"]:
        if panel["type"] != "row":
            yield row, panel
            continue
        row = panel["title"]
        # A collapsed row contains its panels; an open one is followed by them.
        yield from ((row, inner) for inner in panel["panels"])


class Prometheus:
    """Prometheus' HTTP API, for one time span."""

    def __init__(self, url: str, span: Span, rate: float) -> None:
        self._http = httpx.Client(base_url=url, timeout=60)
        self._span, self._rate = span, rate

    def series(self, target: dict[str, Any]) -> list[Series]:
        """The series of an expression; those without any number are left out.

        Raises:
            ValueError: Prometheus refuses the expression; says why.
        """
        span = self._span
        expr = span.filled(target["expr"], self._rate)
        query = {"query": expr, "start": span.start, "end": span.end, "step": span.step}
        reply = self._http.post("/api/v1/query_range", data=query).json()
        if reply["status"] != "success":
            raise ValueError(f"{expr}: {reply['error']}")
        found = []
        for one in reply["data"]["result"]:
            values = [float(value) for _, value in one["values"]]
            if any(map(math.isfinite, values)):
                name = _named(target["legendFormat"], one["metric"])
                found.append(Series(name, [at for at, _ in one["values"]], values))
        return found


def _named(legend: str, labels: dict[str, str]) -> str:
    for label, value in labels.items():
        legend = legend.replace("{{" + label + "}}", value)
    return legend


def check(prometheus: Prometheus, optional: list[str]) -> bool:
    """Print the number of series of each panel; returns whether no required one is empty."""
    complete = True
    for row, panel in panels():
        for target in panel["targets"]:
            allowed = [part for part in optional if part in target["expr"]]
            try:
                count = len(prometheus.series(target))
            except ValueError as problem:
                complete, result = False, f"ERROR {problem}"
            else:
                complete = complete and bool(count or allowed)
                missing = f"none, as {allowed[0]} may be" if allowed else "EMPTY"
                result = f"{count} series" if count else missing
            print(f"{row} / {panel['title']} / {target['legendFormat']}: {result}")
    return complete


def draw(prometheus: Prometheus, row: str, file: Path) -> None:
    """Draw the time series of one row, three side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [one for name, one in panels() if name == row and one["type"] == "timeseries"]
    lines = math.ceil(len(shown) / 3)
    figure = Figure(figsize=(18, 4.4 * lines), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    places = figure.subplots(lines, 3, squeeze=False).flat
    for panel, axes in zip(shown, places, strict=False):
        _draw_panel(axes, panel, prometheus)
    for axes in list(places)[len(shown) :]:
        axes.set_visible(False)
    figure.savefig(file, dpi=90)


def _draw_panel(axes: Axes, panel: dict[str, Any], prometheus: Prometheus) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    series = [one for target in panel["targets"] for one in prometheus.series(target)]
    # Grafana's tooltip hides series that are always 0, too.
    series = [one for one in series if any(value > 0 for value in one.values)] or series[:1]
    stacking = defaults["custom"]["stacking"]["mode"]
    right = {one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"]}
    axes.set_title(panel["title"], loc="left", fontsize=13, fontweight="bold")
    if stacking == "none":
        other = axes.twinx() if right else axes
        for one, colour in zip(series, COLOURS, strict=False):
            on = other if one.name in right else axes
            side = " (right)" if one.name in right else ""
            on.plot(_clock(one.times), one.values, color=colour, linewidth=2, label=one.name + side)
        for on in {axes: 1, other: 1}:
            on.set_ylim(bottom=0)
        handles = [line for on in {axes: 1, other: 1} for line in on.get_lines()]
    else:
        _stack(axes, series, percent=stacking == "percent")
        handles = list(axes.collections)  # type: ignore[arg-type]
    _tidy(axes, "percent" if stacking == "percent" else defaults["unit"])
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.09), ncol=5, frameon=False
    )


def _stack(axes: Axes, series: list[Series], *, percent: bool) -> None:
    times = sorted({at for one in series for at in one.times})
    rows = [dict(zip(one.times, one.values, strict=True)) for one in series]
    heights = [[row.get(at, 0.0) for at in times] for row in rows]
    if percent:
        wholes = [sum(column) or math.nan for column in zip(*heights, strict=True)]
        heights = [[100 * h / w for h, w in zip(row, wholes, strict=True)] for row in heights]
    names = [one.name for one in series]
    axes.stackplot(_clock(times), heights, labels=names, colors=COLOURS, alpha=0.85)
    axes.set_ylim(0, 100 if percent else None)


def _clock(times: list[float]) -> list[float]:
    """Matplotlib's dates: days since 1970."""
    return [at / 86_400 for at in times]


def _tidy(axes: Axes, unit: str) -> None:
    from matplotlib.dates import AutoDateLocator, DateFormatter

    axes.set_ylabel({"s": "seconds", "reqps": "requests / s", "percent": "%"}.get(unit, ""))
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(AutoDateLocator(maxticks=7))  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S"))  # type: ignore[no-untyped-call]


def main() -> int:
    about = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    about.add_argument("--prometheus", default="http://127.0.0.1:9090", help="URL of Prometheus")
    about.add_argument("--last", type=float, default=3600, help="time span in seconds (3600)")
    about.add_argument("--rate", type=float, default=60, help="$__rate_interval in seconds (60)")
    about.add_argument(
        "--optional",
        action="append",
        default=[],
        help="panels with this in an expression may be empty",
    )
    about.add_argument("--picture", type=Path, help="draw the first row into this file")
    options = about.parse_args()
    now = time.time()
    prometheus = Prometheus(options.prometheus, Span(now - options.last, now), options.rate)
    complete = check(prometheus, options.optional)
    if options.picture:
        first, _ = next(panels())
        draw(prometheus, first, options.picture)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
