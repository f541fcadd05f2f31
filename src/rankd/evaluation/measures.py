"""Measures of rankings, by ir-measures (trec_eval's own code underneath)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rankd.errors import BadSettings
from rankd.evaluation.beir import Qrels
from rankd.evaluation.first_stage import Candidates

if TYPE_CHECKING:
    from ir_measures import Measure
    from ir_measures.providers import FallbackProvider

PerQuery = dict[str, dict[str, float]]
"""Of each measure, by its name, the value of each query."""

# What everyone calls the means of ir-measures' RR, AP and R.
_SAID = {"RR": "MRR", "AP": "MAP", "R": "Recall"}


def chosen(names: Sequence[str] | None, depth: int) -> list[Measure]:
    """Measures by their names, or the usual ones.

    Raises:
        BadSettings: nobody can compute one of them.
    """
    import ir_measures

    names = names or ["nDCG@10", "MRR@10", f"MAP@{depth}", "Recall@10", f"Recall@{depth}"]
    found = []
    for name in names:
        try:
            # Its alias Recall has no cut-off.
            measure = ir_measures.parse_measure(re.sub(r"^Recall(?=@)", "R", name))
            supported = _pipeline().supports(measure)  # type: ignore[no-untyped-call]
        except (NameError, ValueError, AssertionError, SyntaxError):
            supported = False
        if not supported:
            raise BadSettings(f"--measures: {name!r} is no measure such as nDCG@10 or Recall@5")
        if measure not in found:
            found.append(measure)
    return found


def _pipeline() -> FallbackProvider:
    """trec_eval, and MRR with a cut-off; other providers run programs or are not there."""
    from ir_measures import providers

    chosen = [providers.registry[name] for name in ("pytrec_eval", "msmarco")]
    return providers.FallbackProvider(chosen)  # type: ignore[no-untyped-call]


def said(measure: Measure) -> str:
    """A measure's name as reports have it."""
    name, _, cutoff = str(measure).partition("@")
    return _SAID.get(name, name) + (f"@{cutoff}" if cutoff else "")


def judge(measures: Sequence[Measure], qrels: Qrels, rankings: Candidates) -> PerQuery:
    """The value of every measure for every judged query; 0 for one without a ranking."""
    # Ranks as scores: trec_eval sorts by score, and breaks ties in a way of its own.
    run = {
        query: {document: -float(rank) for rank, document in enumerate(documents)}
        for query, documents in rankings.items()
    }
    # All in the order of the queries, so that two systems can be compared value by value.
    values: PerQuery = {said(measure): dict.fromkeys(qrels, 0.0) for measure in measures}
    for metric in _pipeline().iter_calc(measures, qrels, run):
        values[said(metric.measure)][metric.query_id] = float(metric.value)
    return values


def means(values: PerQuery) -> dict[str, float]:
    return {name: mean(of) for name, of in values.items()}


def mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)
