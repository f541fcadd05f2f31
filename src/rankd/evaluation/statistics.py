"""Is a difference more than chance, and do two rankings agree?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Resamples of both tests: p is never told as less than about 1 in so many.
RESAMPLES = 10_000
CONFIDENCE = 0.95

# The same data shall give the same p.
_SEED = 20_250_605

# Rows of resamples that are in memory at a time.
_BATCH = 500

# Differences below are rounding.
_NOTHING = 1e-9


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed from one system to another over the same queries.

    Attributes:
        mean: of the queries' differences; above 0 the second is better.
        low, high: bootstrap interval of the mean, at `CONFIDENCE`.
        p: of a paired randomisation test, two-sided: the share of random swaps of the two
            systems within queries whose mean difference is as large.
        better, same, worse: queries.
    """

    mean: float
    low: float
    high: float
    p: float
    better: int
    same: int
    worse: int


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare two systems, query by query."""
    import numpy
    from scipy import stats

    deltas = numpy.asarray(second, dtype=float) - numpy.asarray(first, dtype=float)
    deltas[abs(deltas) < _NOTHING] = 0.0
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
    """Tau-b of two lists of scores of the same documents: 1 is the same order, -1 the reverse.

    None where a list has no order: fewer than two documents, or all scores equal.
    """
    from scipy import stats

    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    tau = float(stats.kendalltau(first, second).statistic)
    return None if math.isnan(tau) else tau
