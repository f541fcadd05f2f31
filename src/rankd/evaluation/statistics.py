"""Significance of a difference between two systems, and agreement of two rankings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Of the test and of the interval; p is at least about 1 in so many.
RESAMPLES = 10_000
CONFIDENCE = 0.95

# Fixed, so that the same data gives the same p.
_SEED = 20_250_605

# Resamples in memory at a time.
_BATCH = 500

# Smaller differences are rounding errors.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Difference:
    """The change from a first system to a second over the same queries.

    Attributes:
        mean: mean difference per query; positive if the second system is better.
        low, high: bootstrap interval of the mean, at `CONFIDENCE`.
        p: of a two-sided paired randomisation test: the share of random swaps of the two
            systems within queries whose mean difference is at least as large.
        better, same, worse: number of queries.
    """

    mean: float
    low: float
    high: float
    p: float
    better: int
    same: int
    worse: int


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare two systems by their values per query, in the same order of queries."""
    import numpy
    from scipy import stats

    deltas = numpy.asarray(second, dtype=float) - numpy.asarray(first, dtype=float)
    deltas[abs(deltas) < _ROUNDING] = 0.0
    better, worse = int((deltas > 0).sum()), int((deltas < 0).sum())
    low = high = float(deltas.mean())
    p = 1.0
    if len(deltas) > 1 and better + worse:
        p = float(
            stats.permutation_test(
                (deltas,),
                numpy.mean,
                permutation_type="samples",
                n_resamples=RESAMPLES,
                batch=_BATCH,
                rng=_SEED,
            ).pvalue
        )
        interval = stats.bootstrap(
            (deltas,),
            numpy.mean,
            confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES,
            batch=_BATCH,
            method="percentile",
            rng=_SEED,
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return Difference(
        float(deltas.mean()), low, high, p, better, len(deltas) - better - worse, worse
    )


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b of two score lists of the same documents: 1 same order, -1 reversed.

    None if a list has no order: fewer than two documents, or all scores equal.
    """
    from scipy import stats

    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    tau = float(stats.kendalltau(first, second).statistic)
    return None if math.isnan(tau) else tau
