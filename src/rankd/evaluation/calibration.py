"""From judged scores to thresholds, reliability and Platt's two numbers. Only arithmetic."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from rankd.types import sigmoid

T = TypeVar("T")

FOLDS = 5

# The same file shall give the same folds.
_SEED = 20_250_605

# Digits that tell two scores apart on the wire.
_DIGITS = 7

_NEWTON_STEPS = 100


class Threshold(NamedTuple):
    """A score from which on a document is kept, and what that does to the judged pairs."""

    value: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs whose probabilities lie in [low, high); the last bin holds 1, too.

    Attributes:
        mean: of their probabilities; None when it has no pairs.
        relevant: share of them that is relevant.
    """

    low: float
    high: float
    pairs: int
    mean: float | None
    relevant: float | None


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far probabilities can be taken at their word.

    Attributes:
        brier: mean squared error; 0 is perfect, always saying 0.5 has 0.25.
        ece: expected calibration error: how far each bin's mean probability is from its
            share of relevant pairs, weighted by its pairs.
        bins: of equal width.
    """

    brier: float
    ece: float
    bins: tuple[Bin, ...]


class PlattFit(NamedTuple):
    """probability = sigmoid(slope * logit + intercept)."""

    slope: float
    intercept: float

    def __call__(self, logit: float) -> float:
        return sigmoid(self.slope * logit + self.intercept)


Choice = Callable[[Sequence[float], Sequence[bool]], Threshold | None]


def wire_score(logit: float) -> float:
    """The relevance score that clients see."""
    return float(f"{sigmoid(logit):.{_DIGITS}g}")


def best_f1(logits: Sequence[float], relevant: Sequence[bool]) -> Threshold:
    """The threshold of the best F1; of equal ones the highest."""
    return max(_thresholds(logits, relevant), key=lambda one: (one.f1, one.value))


def keeping(precision: float) -> Choice:
    """Chooses the lowest threshold, so the most recall, of at least this precision."""

    def choose(logits: Sequence[float], relevant: Sequence[bool]) -> Threshold | None:
        enough = [one for one in _thresholds(logits, relevant) if one.precision >= precision]
        return min(enough, key=lambda one: one.value, default=None)

    return choose


def _thresholds(logits: Sequence[float], relevant: Sequence[bool]) -> list[Threshold]:
    """One between every two scores that differ, and one below all; from high to low."""
    rows = sorted(zip(map(wire_score, logits), logits, relevant, strict=True), reverse=True)
    total = sum(relevant)
    found = []
    hits = 0
    for kept, (score, logit, right) in enumerate(rows, 1):
        hits += right
        below = rows[kept][:2] if kept < len(rows) else (-math.inf, -math.inf)
        if below[0] == score:
            continue  # Nothing goes between equal scores.
        value = _between(below[0], score, sigmoid((below[1] + logit) / 2))
        # Of `kept` documents `hits` are right, out of `total` that should be kept.
        found.append(Threshold(value, hits / kept, hits / total, 2 * hits / (kept + total)))
    return found


def _between(low: float, high: float, middle: float) -> float:
    """The shortest number near the middle that is above `low` and at most `high`."""
    if low == -math.inf:
        return 0.0
    for digits in range(2, 16):
        if low < (value := round(middle, digits)) <= high:
            return value
    return high


def rate(threshold: float, logits: Sequence[float], relevant: Sequence[bool]) -> Threshold:
    """What a given threshold does."""
    return _rate(threshold, [wire_score(logit) >= threshold for logit in logits], relevant)


def _rate(value: float, kept: Sequence[bool], relevant: Sequence[bool]) -> Threshold:
    hits = sum(k and r for k, r in zip(kept, relevant, strict=True))
    precision = hits / sum(kept) if any(kept) else 1.0
    return Threshold(value, precision, hits / sum(relevant), 2 * hits / (sum(kept) + sum(relevant)))


def auc(logits: Sequence[float], relevant: Sequence[bool]) -> float:
    """How often a relevant document scores above one that is not; ties count half."""
    rows = sorted(zip(logits, relevant, strict=True))
    wins = 0.0
    below = start = 0
    while start < len(rows):
        end = start
        while end < len(rows) and rows[end][0] == rows[start][0]:
            end += 1
        right = sum(r for _, r in rows[start:end])
        wrong = end - start - right
        wins += right * (below + wrong / 2)
        below += wrong
        start = end
    return wins / (sum(relevant) * below)


def reliability(probabilities: Sequence[float], relevant: Sequence[bool], bins: int) -> Reliability:
    """Brier score and calibration error, with bins of equal width."""
    count = len(probabilities)
    errors = ((p - r) ** 2 for p, r in zip(probabilities, relevant, strict=True))
    sorted_in: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for probability, right in zip(probabilities, relevant, strict=True):
        sorted_in[min(int(probability * bins), bins - 1)].append((probability, right))
    rows = tuple(_bin(place, bins, rows) for place, rows in enumerate(sorted_in))
    ece = sum(
        row.pairs / count * abs(row.mean - row.relevant)
        for row in rows
        if row.mean is not None and row.relevant is not None
    )
    return Reliability(sum(errors) / count, ece, rows)


def _bin(place: int, bins: int, rows: Sequence[tuple[float, bool]]) -> Bin:
    low, high, count = place / bins, (place + 1) / bins, len(rows)
    if not count:
        return Bin(low, high, 0, None, None)
    mean = sum(probability for probability, _ in rows) / count
    return Bin(low, high, count, mean, sum(right for _, right in rows) / count)


def fit_platt(logits: Sequence[float], relevant: Sequence[bool]) -> PlattFit:
    """Platt's scaling, by Newton's method as Lin, Lin and Weng (2007) give it.

    The targets are Platt's smoothed ones, (N+ + 1) / (N+ + 2) and 1 / (N- + 2), so that
    the numbers stay finite when no score lies on the wrong side.
    """
    right = sum(relevant)
    wrong = len(relevant) - right
    high, low = (right + 1) / (right + 2), 1 / (wrong + 2)
    targets = [high if one else low for one in relevant]
    fit = PlattFit(0.0, math.log((right + 1) / (wrong + 1)))
    loss = _loss(fit, logits, targets)
    for _ in range(_NEWTON_STEPS):
        step = _newton_step(fit, logits, targets)
        size = 1.0
        while size > 1e-10:
            tried = PlattFit(fit.slope - size * step.slope, fit.intercept - size * step.intercept)
            if (new := _loss(tried, logits, targets)) < loss:
                break
            size /= 2
        else:
            return fit
        fit, loss = tried, new
    return fit


def _newton_step(fit: PlattFit, logits: Sequence[float], targets: Sequence[float]) -> PlattFit:
    """Inverse Hessian times gradient; the ridge is for scores that are all the same."""
    a = b = 0.0
    aa, ab, bb = 1e-12, 0.0, 1e-12
    for logit, target in zip(logits, targets, strict=True):
        p = fit(logit)
        error, weight = p - target, p * (1 - p)
        a += error * logit
        b += error
        aa += weight * logit * logit
        ab += weight * logit
        bb += weight
    scale = aa * bb - ab * ab
    return PlattFit((bb * a - ab * b) / scale, (aa * b - ab * a) / scale)


def _loss(fit: PlattFit, logits: Sequence[float], targets: Sequence[float]) -> float:
    """Cross-entropy; log(1 + e^z) without overflow."""
    total = 0.0
    for logit, target in zip(logits, targets, strict=True):
        z = fit.slope * logit + fit.intercept
        total += max(z, 0.0) + math.log1p(math.exp(-abs(z))) - target * z
    return total


def is_separated(logits: Sequence[float], relevant: Sequence[bool]) -> bool:
    """Whether every relevant document scores above every other."""
    rows = list(zip(logits, relevant, strict=True))
    return min(s for s, right in rows if right) > max(s for s, right in rows if not right)


def folds(queries: Sequence[str], relevant: Sequence[bool]) -> list[list[int]] | None:
    """Places of pairs in `FOLDS` parts, the pairs of one query together.

    None where they are too few: every part must leave both kinds to learn from.
    """
    names = list(dict.fromkeys(queries))
    if len(names) < FOLDS:
        return None
    random.Random(_SEED).shuffle(names)
    part_of = {name: place % FOLDS for place, name in enumerate(names)}
    parts: list[list[int]] = [[] for _ in range(FOLDS)]
    for place, query in enumerate(queries):
        parts[part_of[query]].append(place)
    for part in parts:
        if len({relevant[place] for place in _others(part, len(queries))}) < 2:
            return None
    return parts


def held_out_platt(
    logits: Sequence[float], relevant: Sequence[bool], parts: Sequence[Sequence[int]]
) -> list[float]:
    """Each pair's probability by a scaling that was fitted without its part."""
    found = [0.0] * len(logits)
    for part in parts:
        rest = _others(part, len(logits))
        fit = fit_platt(_pick(logits, rest), _pick(relevant, rest))
        for place in part:
            found[place] = fit(logits[place])
    return found


def held_out_threshold(
    choose: Choice,
    logits: Sequence[float],
    relevant: Sequence[bool],
    parts: Sequence[Sequence[int]],
) -> Threshold | None:
    """What thresholds do to pairs they were chosen without; `value` is their mean."""
    kept = [False] * len(logits)
    values = []
    for part in parts:
        rest = _others(part, len(logits))
        chosen = choose(_pick(logits, rest), _pick(relevant, rest))
        if chosen is None:
            return None
        values.append(chosen.value)
        for place in part:
            kept[place] = wire_score(logits[place]) >= chosen.value
    return _rate(sum(values) / len(values), kept, relevant)


def _others(part: Sequence[int], count: int) -> list[int]:
    inside = set(part)
    return [place for place in range(count) if place not in inside]


def _pick(values: Sequence[T], places: Sequence[int]) -> list[T]:
    return [values[place] for place in places]
