"""Score thresholds: the candidates, the choice among them, the effect on judged pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from rankd.types import rounded, sigmoid


class Threshold(NamedTuple):
    """A threshold, and its effect on the judged pairs.

    Attributes:
        value: documents whose relevance score is at least this are kept.
        precision: share of the kept documents that is relevant.
        recall: share of the relevant documents that is kept.
        f1: harmonic mean of both.
    """

    value: float
    precision: float
    recall: float
    f1: float


ThresholdChooser = Callable[[Sequence[float], Sequence[bool]], Threshold | None]
"""Chooses a threshold from logits and judgments; None if no threshold qualifies."""


def wire_score(logit: float) -> float:
    """The relevance score that clients receive."""
    return rounded(sigmoid(logit))


def best_f1(logits: Sequence[float], relevant: Sequence[bool]) -> Threshold:
    """The threshold with the best F1; the highest among equals."""
    # F1 is rounded, because equal ones may differ in the last bit.
    return max(_candidates(logits, relevant), key=lambda one: (round(one.f1, 12), one.value))


def at_precision(minimum: float) -> ThresholdChooser:
    """Chooses the lowest threshold with at least this precision: the most recall."""

    def choose(logits: Sequence[float], relevant: Sequence[bool]) -> Threshold | None:
        precise = [one for one in _candidates(logits, relevant) if one.precision >= minimum]
        return min(precise, key=lambda one: one.value, default=None)

    return choose


def effect(value: float, kept: Sequence[bool], relevant: Sequence[bool]) -> Threshold:
    """Precision, recall and F1 if the `kept` documents are returned; precision 1 if none are."""
    hits = sum(k and r for k, r in zip(kept, relevant, strict=True))
    precision = hits / sum(kept) if any(kept) else 1.0
    return Threshold(value, precision, hits / sum(relevant), 2 * hits / (sum(kept) + sum(relevant)))


def _candidates(logits: Sequence[float], relevant: Sequence[bool]) -> list[Threshold]:
    """One threshold below all scores and one between each two that differ; ascending."""
    from sklearn.metrics import precision_recall_curve

    precisions, recalls, _ = precision_recall_curve(relevant, list(map(wire_score, logits)))
    # The curve's last point (precision 1, recall 0) belongs to no threshold.
    rows = zip(_cuts(logits), precisions[:-1].tolist(), recalls[:-1].tolist(), strict=True)
    return [Threshold(value, p, r, 2 * p * r / (p + r) if p else 0.0) for value, p, r in rows]


def _cuts(logits: Sequence[float]) -> list[float]:
    """0, then one number between each two neighbouring scores of the wire."""
    lowest: dict[float, float] = {}
    highest: dict[float, float] = {}
    for logit in sorted(logits):
        score = wire_score(logit)
        lowest.setdefault(score, logit)
        highest[score] = logit
    between = [
        _between(low, high, sigmoid((highest[low] + lowest[high]) / 2))
        for low, high in pairwise(lowest)
    ]
    return [0.0, *between]


def _between(low: float, high: float, middle: float) -> float:
    """The shortest number near the middle that is above `low` and at most `high`."""
    for digits in range(2, 16):
        if low < (value := round(middle, digits)) <= high:
            return value
    return high
