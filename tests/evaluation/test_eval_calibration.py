"""Thresholds, reliability and Platt scaling on known distributions."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankd.evaluation import calibration, cross_validation, thresholds
from rankd.evaluation.thresholds import Threshold, wire_score
from rankd.types import sigmoid

Judged = tuple[list[float], list[bool]]


def calibrated(count: int, seed: int = 3) -> Judged:
    """Pairs that are relevant with the probability that is their score."""
    rng = random.Random(seed)
    logits = [rng.gauss(0, 2) for _ in range(count)]
    return logits, [rng.random() < sigmoid(logit) for logit in logits]


def f1_at(cut: float, logits: Sequence[float], relevant: Sequence[bool]) -> tuple[float, float]:
    """Precision and F1, by their definitions."""
    kept = [wire_score(logit) >= cut for logit in logits]
    hits = sum(k and r for k, r in zip(kept, relevant, strict=True))
    precision = hits / sum(kept) if any(kept) else 0.0
    recall = hits / sum(relevant)
    return precision, 2 * precision * recall / (precision + recall) if hits else 0.0


some_pairs = st.lists(
    st.tuples(st.floats(-30, 30) | st.sampled_from([-1.0, 0.0, 2.0, 40.0]), st.booleans()),
    min_size=2,
    max_size=30,
).filter(lambda rows: len({right for _, right in rows}) == 2)


@given(some_pairs)
def test_no_threshold_has_a_better_f1(rows: list[tuple[float, bool]]) -> None:
    logits, relevant = [logit for logit, _ in rows], [right for _, right in rows]
    cuts = [0.0, *map(wire_score, logits)]

    found = thresholds.best_f1(logits, relevant)

    assert found.f1 == pytest.approx(max(f1_at(cut, logits, relevant)[1] for cut in cuts))
    assert found.f1 == pytest.approx(f1_at(found.value, logits, relevant)[1])
    assert 0 <= found.value <= 1


@given(some_pairs, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_of_the_precise_thresholds_the_one_with_most_recall_is_chosen(
    rows: list[tuple[float, bool]], precision: float
) -> None:
    logits, relevant = [logit for logit, _ in rows], [right for _, right in rows]
    enough = [
        sum(wire_score(one) >= cut and right for one, right in rows) / sum(relevant)
        for cut in map(wire_score, logits)
        if f1_at(cut, logits, relevant)[0] >= precision
    ]

    found = thresholds.at_precision(precision)(logits, relevant)

    if found is None:
        assert not enough
    else:
        assert found.precision >= precision
        assert found.recall == pytest.approx(max(enough))
        kept = [wire_score(logit) >= found.value for logit in logits]
        assert found == pytest.approx(thresholds.effect(found.value, kept, relevant))


def test_a_threshold_is_a_short_number_between_two_scores() -> None:
    # Scores .119, .269, .731: the cut lies midway between the logits of the last two.
    assert thresholds.best_f1([-2.0, -1.0, 1.0], [False, False, True]).value == 0.5
    # Nothing shorter lies between these two.
    low, high = math.log(0.42 / 0.58), math.log(0.4201 / 0.5799)
    found = thresholds.best_f1([low, high], [False, True])
    assert found.value == pytest.approx(0.42005, abs=4e-5)
    assert found.f1 == 1


def test_no_threshold_lies_between_scores_that_are_equal_on_the_wire() -> None:
    found = thresholds.best_f1([40.0, 50.0], [False, True])

    assert found == pytest.approx(Threshold(0.0, 0.5, 1.0, 2 / 3))


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    assert calibration.auc([1, 2, 3, 4], [False, False, True, True]) == 1
    assert calibration.auc([1, 2, 3, 4], [False, True, False, True]) == 0.75
    assert calibration.auc([1, 1], [False, True]) == 0.5


def test_reliability_is_computed_from_the_bins() -> None:
    found = calibration.reliability([0.1, 0.2, 0.3, 0.9], [False, True, True, True], 2)

    low, high = found.bins
    assert [low.pairs, low.mean, low.relevant] == pytest.approx([3, 0.2, 2 / 3])
    assert [high.pairs, high.mean, high.relevant] == pytest.approx([1, 0.9, 1.0])
    assert found.ece == pytest.approx(3 / 4 * (2 / 3 - 0.2) + 1 / 4 * 0.1)
    assert found.brier == pytest.approx((0.01 + 0.64 + 0.49 + 0.01) / 4)


def test_the_last_bin_contains_probability_one_and_empty_bins_do_not_count() -> None:
    found = calibration.reliability([1.0, 0.0], [True, False], 10)

    assert [row.pairs for row in found.bins] == [1, *[0] * 8, 1]
    assert (found.brier, found.ece) == (0, 0)


def test_scaling_keeps_calibrated_scores() -> None:
    logits, relevant = calibrated(20_000)

    fit = calibration.fit_platt(logits, relevant)

    assert fit.slope == pytest.approx(1, abs=0.05)
    assert fit.intercept == pytest.approx(0, abs=0.05)
    raw = calibration.reliability([sigmoid(logit) for logit in logits], relevant, 10)
    assert raw.ece < 0.02


def test_scaling_reverses_a_distortion_of_the_scores() -> None:
    logits, relevant = calibrated(20_000)
    distorted = [3 * logit - 2 for logit in logits]

    fit = calibration.fit_platt(distorted, relevant)

    assert fit.slope == pytest.approx(1 / 3, abs=0.02)
    assert fit.intercept == pytest.approx(2 / 3, abs=0.05)


def test_the_fit_is_the_minimum_of_the_cross_entropy() -> None:
    logits, relevant = calibrated(50, seed=8)
    right = sum(relevant)
    high, low = (right + 1) / (right + 2), 1 / (50 - right + 2)

    def loss(slope: float, intercept: float) -> float:
        scaled = [sigmoid(slope * logit + intercept) for logit in logits]
        return -sum(
            target * math.log(p) + (1 - target) * math.log(1 - p)
            for p, target in zip(scaled, [high if r else low for r in relevant], strict=True)
        )

    fit = calibration.fit_platt(logits, relevant)

    for slope, intercept in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        assert loss(*fit) < loss(fit.slope + slope, fit.intercept + intercept)


@pytest.mark.parametrize(
    ("logits", "relevant"),
    [
        ([-3.0, -2.0, 2.0, 3.0], [False, False, True, True]),
        ([-1e4, 1e4], [False, True]),
        ([500.0] * 6, [False, True] * 3),
    ],
)
def test_separated_and_constant_scores_give_finite_numbers(
    logits: list[float], relevant: list[bool]
) -> None:
    fit = calibration.fit_platt(logits, relevant)

    assert all(map(math.isfinite, fit))
    wrong, right = fit(logits[0]), fit(logits[-1])
    assert 0 < wrong <= right < 1


def test_figures_equal_those_computed_by_hand() -> None:
    """Recorded from an implementation in plain Python: Newton's method, sorted ranks, sums."""
    logits, relevant = calibrated(150)
    logits = [round(logit, 1) for logit in logits]  # With ties.
    parts = cross_validation.folds([str(index // 3) for index in range(150)], relevant)
    assert parts is not None

    raw = calibration.reliability([sigmoid(logit) for logit in logits], relevant, 10)
    probabilities = cross_validation.held_out_platt(logits, relevant, parts)
    held_out = calibration.reliability(probabilities, relevant, 10)

    figures = [
        *thresholds.best_f1(logits, relevant),
        *(thresholds.at_precision(0.9)(logits, relevant) or ()),
        *calibration.fit_platt(logits, relevant),
        *(calibration.auc(logits, relevant), raw.brier, raw.ece, held_out.brier, held_out.ece),
    ]
    recorded = [
        *(0.39, 0.68, 0.8095238095238095, 0.7391304347826086),
        *(0.8, 0.9, 0.42857142857142855, 0.5806451612903226),
        *(0.7420708229351815, -0.19304459835972984),
        *(0.8203794927932859, 0.170308260736195, 0.11370033312885885),
        *(0.17110471479865028, 0.06788298649519725),
    ]
    assert figures == pytest.approx(recorded, abs=1e-6)


def test_separated_scores_are_detected() -> None:
    assert calibration.is_separated([-1.0, 1.0], [False, True])
    assert not calibration.is_separated([1.0, 1.0], [False, True])
    assert not calibration.is_separated([-1.0, 1.0], [True, False])


def test_the_pairs_of_a_query_stay_in_one_fold() -> None:
    queries = [f"q{index // 3}" for index in range(60)]

    parts = cross_validation.folds(queries, [place % 3 == 0 for place in range(60)])

    assert parts is not None
    assert sorted(place for part in parts for place in part) == list(range(60))
    assert sum(len({queries[place] for place in part}) for part in parts) == 20


def test_too_few_queries_give_no_folds() -> None:
    assert cross_validation.folds(["q"] * 50, [True, False] * 25) is None
    assert cross_validation.folds(list("abcde"), [True, *[False] * 4]) is None


def test_held_out_figures_of_random_scores_are_those_of_chance() -> None:
    rng = random.Random(1)
    logits = [rng.gauss(0, 3) for _ in range(400)]
    relevant = [rng.random() < 0.5 for _ in logits]  # Independent of the scores.
    parts = cross_validation.folds([str(place) for place in range(400)], relevant)
    assert parts is not None

    scaled = cross_validation.held_out_platt(logits, relevant, parts)
    cut = cross_validation.held_out_threshold(thresholds.best_f1, logits, relevant, parts)

    raw = calibration.reliability([sigmoid(logit) for logit in logits], relevant, 10)
    assert calibration.reliability(scaled, relevant, 10).brier == pytest.approx(0.25, abs=0.01)
    assert raw.brier > 0.35
    assert cut is not None
    assert cut.f1 <= thresholds.best_f1(logits, relevant).f1
