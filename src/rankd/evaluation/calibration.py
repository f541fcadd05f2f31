"""How far scores can be read as probabilities: AUC, Brier score, calibration error, Platt scaling.

The arithmetic is scikit-learn's, which is imported on first use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rankd.evaluation.judgments import JudgedGroup
from rankd.evaluation.thresholds import Threshold
from rankd.types import sigmoid

# Of the fit's gradient. scikit-learn's 1e-4 leaves errors in the fourth digit.
_TOLERANCE = 1e-9
_MAX_ITERATIONS = 1000


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs whose probabilities lie in [low, high); the last bin includes 1.

    Attributes:
        pairs: how many.
        mean: mean probability; None if the bin is empty.
        relevant: share of relevant pairs; None if the bin is empty.
    """

    low: float
    high: float
    pairs: int
    mean: float | None
    relevant: float | None


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well probabilities match the judgments.

    Attributes:
        brier: Brier score: mean squared error, 0 to 1. 0 is perfect; a constant 0.5 has 0.25.
        ece: expected calibration error, 0 to 1: the distance between a bin's mean probability
            and its share of relevant pairs, averaged over the pairs.
        bins: of equal width, ascending.
    """

    brier: float
    ece: float
    bins: tuple[Bin, ...]


class PlattFit(NamedTuple):
    """Platt scaling: probability = sigmoid(slope * logit + intercept)."""

    slope: float
    intercept: float

    def __call__(self, logit: float) -> float:
        return sigmoid(self.slope * logit + self.intercept)


@dataclass(frozen=True)
class CalibrationResult:
    """The figures of one instruction.

    Attributes:
        logits: one per pair of `group`, in its order.
        threshold: None if no threshold reaches the wanted precision.
        held_out: effect of thresholds on queries that were not used to choose them; None if
            there are too few queries.
        auc: area under the ROC curve.
        raw: reliability of the scores as they are.
        platt: None unless requested.
        scaled: reliability of Platt's probabilities on queries that were not used for the
            fit; None unless requested, or if there are too few queries.
        separated: every relevant document scores above every other.
    """

    group: JudgedGroup
    logits: Sequence[float]
    threshold: Threshold | None
    held_out: Threshold | None
    auc: float
    raw: Reliability
    platt: PlattFit | None
    scaled: Reliability | None
    separated: bool

    @property
    def platt_is_usable(self) -> bool:
        """Whether there is a fit with a positive slope; a negative one reverses the order."""
        return self.platt is not None and self.platt.slope > 0

    @property
    def has_settings(self) -> bool:
        """Whether there is a threshold or a fit to write."""
        return self.threshold is not None or self.platt_is_usable


def auc(logits: Sequence[float], relevant: Sequence[bool]) -> float:
    """Area under the ROC curve: how often a relevant document outscores another; ties half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(relevant, logits))


def reliability(probabilities: Sequence[float], relevant: Sequence[bool], bins: int) -> Reliability:
    """Brier score and calibration error, with `bins` bins of equal width."""
    from sklearn.metrics import brier_score_loss

    rows = _bins(probabilities, relevant, bins)
    gaps = (
        row.pairs * abs(row.mean - row.relevant)
        for row in rows
        if row.mean is not None and row.relevant is not None
    )
    brier = float(brier_score_loss(relevant, probabilities))
    return Reliability(brier, sum(gaps) / len(probabilities), rows)


def _bins(probabilities: Sequence[float], relevant: Sequence[bool], count: int) -> tuple[Bin, ...]:
    """The bins. scikit-learn's `calibration_curve` gives neither counts nor empty bins."""
    import numpy

    def per_bin(weights: Sequence[float] | None) -> list[float]:
        sums = numpy.histogram(probabilities, count, (0, 1), weights=weights)[0]
        return [float(value) for value in sums]

    judgments = [float(one) for one in relevant]
    rows = zip(per_bin(None), per_bin(probabilities), per_bin(judgments), strict=True)
    return tuple(
        Bin(
            index / count,
            (index + 1) / count,
            int(pairs),
            total / pairs if pairs else None,
            right / pairs if pairs else None,
        )
        for index, (pairs, total, right) in enumerate(rows)
    )


def fit_platt(logits: Sequence[float], relevant: Sequence[bool]) -> PlattFit:
    """Fit Platt scaling: logistic regression on the logit, without a penalty.

    The targets are Platt's smoothed ones, (N+ + 1) / (N+ + 2) and 1 / (N- + 2): both numbers
    stay finite if the classes are separable.
    """
    import numpy
    from sklearn.linear_model import LogisticRegression

    right = sum(relevant)
    targets = numpy.where(relevant, (right + 1) / (right + 2), 1 / (len(relevant) - right + 2))
    # LogisticRegression takes no fractional targets. Each pair stands in both classes, weighted
    # by its target and by the rest: the loss is the same.
    features = numpy.array([*logits, *logits], dtype=float).reshape(-1, 1)
    classes = numpy.repeat([1, 0], len(logits))
    model = LogisticRegression(C=math.inf, tol=_TOLERANCE, max_iter=_MAX_ITERATIONS)
    model.fit(features, classes, sample_weight=numpy.concatenate([targets, 1 - targets]))
    return PlattFit(float(model.coef_[0, 0]), float(model.intercept_[0]))


def is_separated(logits: Sequence[float], relevant: Sequence[bool]) -> bool:
    """Whether every relevant document scores above every other."""
    rows = list(zip(logits, relevant, strict=True))
    return min(s for s, right in rows if right) > max(s for s, right in rows if not right)
