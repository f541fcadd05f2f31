"""The report of `rankd eval`: text for a terminal, Markdown, JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from rankd import __version__
from rankd.evaluation.measures import PerQuery, means
from rankd.evaluation.statistics import CONFIDENCE, RESAMPLES, Difference

Changes = Mapping[str, Difference]
"""The difference by measure name."""


@dataclass(frozen=True)
class System:
    """One evaluated system: a local engine or a server.

    Attributes:
        letter: A, or B if it is the system that A is compared with.
        about: everything that decides its scores.
        values: by measure and query.
        seconds: spent in this run.
        reused: number of queries that an earlier run had scored.
        warnings: the first warning of each query that had one.
    """

    letter: str
    about: Mapping[str, Any]
    values: PerQuery
    seconds: float
    reused: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class EvalReport:
    """All results.

    Attributes:
        data: name, split, number of queries and pairs, depth, first stage.
        measures: names, in the order of the tables; the first one is tested.
        first_stage: values of the first stage's own order.
        gains: for each system, the change from the first stage.
        change: from A to B; None without B.
        taus: Kendall's tau of A and B by query; empty without B.
        queries: values by query: of the first stage, A, and B if there is one.
    """

    data: Mapping[str, Any]
    measures: Sequence[str]
    first_stage: PerQuery
    systems: Sequence[System]
    gains: Sequence[Changes]
    change: Changes | None
    taus: Mapping[str, float | None]
    queries: Mapping[str, Sequence[Mapping[str, float]]]

    @property
    def tau(self) -> float | None:
        """Mean over the queries that have one."""
        defined = [tau for tau in self.taus.values() if tau is not None]
        return sum(defined) / len(defined) if defined else None


def to_json(report: EvalReport) -> bytes:
    """All results, with the values of each query."""
    names = ["first_stage", *(system.letter for system in report.systems)]
    content: dict[str, Any] = {
        "rankd": __version__,
        "data": report.data,
        "first_stage": means(report.first_stage),
        "systems": [
            {
                "name": system.letter,
                "about": system.about,
                "measures": means(system.values),
                "against_first_stage": {name: asdict(one) for name, one in gains.items()},
                "seconds": round(system.seconds, 3),
                "reused_queries": system.reused,
                "queries_with_warnings": len(system.warnings),
                "first_warning": next(iter(system.warnings), None),
            }
            for system, gains in zip(report.systems, report.gains, strict=True)
        ],
        "tests": {
            "test": "paired randomisation, two-sided",
            "interval": "bootstrap, percentiles",
            "confidence": CONFIDENCE,
            "resamples": RESAMPLES,
        },
    }
    if report.change is not None:
        content["comparison"] = {
            "from": "A",
            "to": "B",
            "measures": {name: asdict(one) for name, one in report.change.items()},
            "kendall_tau": report.tau,
            "kendall_tau_queries": sum(tau is not None for tau in report.taus.values()),
        }
    content["queries"] = {
        query: dict(zip(names, values, strict=True))
        | ({"kendall_tau": report.taus[query]} if query in report.taus else {})
        for query, values in report.queries.items()
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)


def to_text(report: EvalReport) -> str:
    rows = _table(report)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    body = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*_heading(report), "", *body, "", *_findings(report)])


def to_markdown(report: EvalReport) -> str:
    head, *body = _table(report)
    lines = [
        f"# {report.data['name']}: {report.data['first_stage']}, reranked",
        "",
        *(f"- {line}" for line in _heading(report)),
        "",
        f"| {' | '.join(head)} |",
        f"|---|{'---:|' * (len(head) - 1)}",
        *(f"| {' | '.join(row)} |" for row in body),
        "",
        *(f"- {line}" for line in _findings(report)),
        "",
        f"Means over all judged queries. Intervals: bootstrap, {CONFIDENCE:.0%}. p: paired "
        f"randomisation test, two-sided, {RESAMPLES:,} resamples. rankd {__version__}.",
        "",
        "What decides the scores:",
        "",
    ]
    for system in report.systems:
        facts = ", ".join(f"{name} {value}" for name, value in system.about.items())
        lines.append(f"- {system.letter}: {facts}")
    return "\n".join([*lines, ""])


def _heading(report: EvalReport) -> list[str]:
    data = report.data
    lines = [
        f"{data['name']} ({data['split']}): {data['queries']:,} queries, {data['pairs']:,} pairs "
        f"of the first stage ({data['first_stage']}, {data['depth']:,} at most each)"
    ]
    if data["without_candidates"]:
        lines.append(f"without candidates, counted as 0: {data['without_candidates']:,} queries")
    for system in report.systems:
        about = system.about
        origin = about.get("url") or f"{about['engine']} on {about['device']}, {about['dtype']}"
        lines.append(
            f"{system.letter}: {about['model'] or 'unnamed'} ({origin}), {_effort(system)}"
        )
        if system.warnings:
            lines.append(
                f"{system.letter}: queries with warnings: {len(system.warnings):,}, "
                f"such as: {system.warnings[0]}"
            )
    instructions = [system.about["instruction"] for system in report.systems]
    if len(set(instructions)) > 1:
        lines += [
            f"{system.letter}: instruction {instruction!r}"
            for system, instruction in zip(report.systems, instructions, strict=True)
        ]
    return lines


def _effort(system: System) -> str:
    before = f", {system.reused:,} queries kept from before" if system.reused else ""
    return f"{system.seconds:.1f} s{before}"


def _table(report: EvalReport) -> list[list[str]]:
    """One row per measure: means, and the change from A to B, or from the first stage to A."""
    letters = [system.letter for system in report.systems]
    column = "B − A" if report.change is not None else f"{letters[0]} − first stage"
    rows = [["measure", "first stage", *letters, column, f"{CONFIDENCE:.0%} interval", "p"]]
    changes = report.change if report.change is not None else report.gains[0]
    first = means(report.first_stage)
    system_means = [means(system.values) for system in report.systems]
    for name in report.measures:
        change = changes[name]
        rows.append(
            [
                name,
                f"{first[name]:.3f}",
                *(f"{values[name]:.3f}" for values in system_means),
                f"{change.mean:+.3f}",
                f"{change.low:+.3f} to {change.high:+.3f}",
                _p(change.p),
            ]
        )
    return rows


def _findings(report: EvalReport) -> list[str]:
    """The tests of the first measure, in words."""
    name = report.measures[0]
    lines = [
        f"{system.letter} against the first stage: {_finding(name, gains[name])}"
        for system, gains in zip(report.systems, report.gains, strict=True)
    ]
    if report.change is not None:
        lines.append(f"B against A: {_finding(name, report.change[name])}")
        tau = "undefined" if report.tau is None else f"{report.tau:.3f}"
        lines.append(f"Kendall's tau of A and B, mean of the queries: {tau}")
    return lines


def _finding(name: str, change: Difference) -> str:
    if change.p > 1 - CONFIDENCE:
        result = "chance alone may explain it"
    else:
        result = "better" if change.mean > 0 else "worse"
    return (
        f"{name} {change.mean:+.3f} (p {_p(change.p)}): {result}; "
        f"{change.better} queries better, {change.same} the same, {change.worse} worse"
    )


def _p(p: float) -> str:
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")
