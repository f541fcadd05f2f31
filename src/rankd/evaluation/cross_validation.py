"""Figures on held-out queries: each part is judged by what was learnt from the other parts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from rankd.evaluation.calibration import fit_platt
from rankd.evaluation.thresholds import Threshold, ThresholdChooser, effect, wire_score

T = TypeVar("T")

FOLDS = 5

# Fixed, so that one file always gives the same folds.
_SEED = 20_250_605


def folds(queries: Sequence[str], relevant: Sequence[bool]) -> list[list[int]] | None:
    """Indices of the pairs in `FOLDS` parts; the pairs of a query stay together.

    None if there are fewer queries than parts, or if all pairs outside a part are of one class.
    """
    names = list(dict.fromkeys(queries))
    if len(names) < FOLDS:
        return None
    random.Random(_SEED).shuffle(names)
    part_of = {name: index % FOLDS for index, name in enumerate(names)}
    parts: list[list[int]] = [[] for _ in range(FOLDS)]
    for index, query in enumerate(queries):
        parts[part_of[query]].append(index)
    for part in parts:
        if len({relevant[index] for index in _others(part, len(queries))}) < 2:
            return None
    return parts


def held_out_platt(
    logits: Sequence[float], relevant: Sequence[bool], parts: Sequence[Sequence[int]]
) -> list[float]:
    """Each pair's probability, by Platt scaling that was fitted without its part."""
    probabilities = [0.0] * len(logits)
    for part in parts:
        rest = _others(part, len(logits))
        fit = fit_platt(_pick(logits, rest), _pick(relevant, rest))
        for index in part:
            probabilities[index] = fit(logits[index])
    return probabilities


def held_out_threshold(
    choose: ThresholdChooser,
    logits: Sequence[float],
    relevant: Sequence[bool],
    parts: Sequence[Sequence[int]],
) -> Threshold | None:
    """Effect of thresholds on the parts they were chosen without.

    `value` is the mean of the thresholds. None if no threshold qualifies for one of the parts.
    """
    kept = [False] * len(logits)
    values = []
    for part in parts:
        rest = _others(part, len(logits))
        chosen = choose(_pick(logits, rest), _pick(relevant, rest))
        if chosen is None:
            return None
        values.append(chosen.value)
        for index in part:
            kept[index] = wire_score(logits[index]) >= chosen.value
    return effect(sum(values) / len(values), kept, relevant)


def _others(part: Sequence[int], count: int) -> list[int]:
    inside = set(part)
    return [index for index in range(count) if index not in inside]


def _pick(values: Sequence[T], indices: Sequence[int]) -> list[T]:
    return [values[index] for index in indices]
