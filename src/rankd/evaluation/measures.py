"""Measures of rankings, computed by ir-measures with trec_eval's own code."""

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
"""The value of each query, by measure name and query id."""

# The usual names of the means of ir-measures' RR, AP and R.
_DISPLAY_NAMES = {"RR": "MRR", "AP": "MAP", "R": "Recall"}


def parse(names: Sequence[str] | None, depth: int) -> list[Measure]:
    """Measures by name; nDCG@10, MRR@10, MAP and recall if no names are given.

    Raises:
        BadSettings: a name is unknown, or no provider computes the measure.
    """
    import ir_measures

    names = names or ["nDCG@10", "MRR@10", f"MAP@{depth}", "Recall@10", f"Recall@{depth}"]
    parsed = []
    for name in names:
        try:
            # ir-measures knows R@10, but not Recall@10.
            measure = ir_measures.parse_measure(re.sub(r"^Recall(?=@)", "R", name))
            supported = _provider().supports(measure)  # type: ignore[no-untyped-call]
        except (NameError, ValueError, AssertionError, SyntaxError):
            supported = False
        if not supported:
            raise BadSettings(
                f"--measures: {name!r} is not a measure; use names such as nDCG@10 or Recall@5"
            )
        if measure not in parsed:
            parsed.append(measure)
    return parsed


def _provider() -> FallbackProvider:
    """trec_eval, and `msmarco` for MRR with a cut-off. Other providers run programs."""
    from ir_measures import providers

    chosen = [providers.registry[name] for name in ("pytrec_eval", "msmarco")]
    return providers.FallbackProvider(chosen)  # type: ignore[no-untyped-call]


def display_name(measure: Measure) -> str:
    """The measure's name in reports, such as MRR@10."""
    name, _, cutoff = str(measure).partition("@")
    return _DISPLAY_NAMES.get(name, name) + (f"@{cutoff}" if cutoff else "")


def compute(measures: Sequence[Measure], qrels: Qrels, rankings: Candidates) -> PerQuery:
    """Every measure for every judged query, in the order of `qrels`; 0 without a ranking."""
    # trec_eval sorts by score and breaks ties by document id, so ranks are the scores.
    run = {
        query: {document: -float(rank) for rank, document in enumerate(documents)}
        for query, documents in rankings.items()
    }
    # In one order, so that two systems can be compared value by value.
    values: PerQuery = {display_name(measure): dict.fromkeys(qrels, 0.0) for measure in measures}
    for metric in _provider().iter_calc(measures, qrels, run):
        values[display_name(metric.measure)][metric.query_id] = float(metric.value)
    return values


def means(values: PerQuery) -> dict[str, float]:
    return {name: mean(by_query) for name, by_query in values.items()}


def mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)
