"""Measures compared with values computed by hand, and the tests of differences."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from rankd.errors import BadSettings
from rankd.evaluation import measures
from rankd.evaluation.statistics import difference, kendall_tau

QRELS = {"q3": {"d": 1}, "q1": {"a": 2, "b": 1, "z": 1}, "q2": {"c": 1}}
RANKINGS = {"q1": ["x", "a", "b"], "q2": ["c"]}


def judged(*names: str) -> measures.PerQuery:
    return measures.compute(measures.parse(names, 100), QRELS, RANKINGS)


def test_measures_equal_their_definitions() -> None:
    found = judged("nDCG@10", "MRR@10", "MAP@100", "Recall@2", "P@1")

    gain = 2 / math.log2(3) + 1 / math.log2(4)
    ideal = 2 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert found["nDCG@10"]["q1"] == pytest.approx(gain / ideal)
    assert found["MRR@10"]["q1"] == pytest.approx(1 / 2)
    assert found["MAP@100"]["q1"] == pytest.approx((1 / 2 + 2 / 3) / 3)
    assert found["Recall@2"]["q1"] == pytest.approx(1 / 3)
    assert found["P@1"]["q1"] == 0
    assert {name: values["q2"] for name, values in found.items()} == dict.fromkeys(found, 1.0)


def test_a_query_without_candidates_counts_as_zero() -> None:
    found = judged("nDCG@10", "MRR@10")

    assert found["nDCG@10"]["q3"] == 0
    assert [list(values) for values in found.values()] == [list(QRELS)] * 2
    assert measures.means(found)["MRR@10"] == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_document_ids_do_not_change_the_order_of_a_ranking() -> None:
    # trec_eval breaks ties by document id; a ranking has no ties.
    qrels = {"q": {"a": 1}}
    [measure] = measures.parse(["MRR"], 10)

    assert measures.compute([measure], qrels, {"q": ["a", "z"]})["MRR"]["q"] == 1
    assert measures.compute([measure], qrels, {"q": ["z", "a"]})["MRR"]["q"] == 0.5


def test_the_default_measures_have_their_usual_names() -> None:
    names = [measures.display_name(measure) for measure in measures.parse(None, 50)]

    assert names == ["nDCG@10", "MRR@10", "MAP@50", "Recall@10", "Recall@50"]


@pytest.mark.parametrize("name", ["nDGC@10", "nDCG@ten", "Recall", "ERR@3", ""])
def test_an_unknown_measure_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(BadSettings, match="is not a measure; use names such as") as refused:
        measures.parse([name], 100)

    assert repr(name) in str(refused.value)


def test_p_is_the_share_of_swaps_with_as_large_a_difference() -> None:
    first = [0.1, 0.4, 0.35, 0.8, 0.2, 0.6, 0.5, 0.3]
    second = [0.3, 0.5, 0.30, 0.9, 0.6, 0.6, 0.7, 0.2]
    deltas = [b - a for a, b in zip(first, second, strict=True)]
    sums = [
        abs(sum(sign * delta for sign, delta in zip(signs, deltas, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(deltas))
    ]
    expected = sum(one >= abs(sum(deltas)) - 1e-12 for one in sums) / len(sums)

    found = difference(first, second)

    assert found.p == pytest.approx(expected)
    assert found.mean == pytest.approx(sum(deltas) / len(deltas))
    assert (found.better, found.same, found.worse) == (5, 1, 2)
    assert found.low < found.mean < found.high


def test_random_differences_are_seldom_significant() -> None:
    chance = random.Random(5)
    runs = [
        difference([chance.random() for _ in range(30)], [chance.random() for _ in range(30)])
        for _ in range(20)
    ]

    assert sum(run.p < 0.05 for run in runs) <= 4


def test_a_clear_difference_is_significant_and_its_interval_excludes_zero() -> None:
    chance = random.Random(5)
    first = [chance.random() for _ in range(40)]

    found = difference(first, [value + 0.2 + 0.1 * chance.random() for value in first])

    assert found.p < 0.001
    assert 0.2 < found.low < found.high < 0.3


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.1, 0.9]])
def test_equal_systems_do_not_differ(values: list[float]) -> None:
    found = difference(values, values)

    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert found.same == len(values)


def test_tau_counts_the_pairs_that_two_orders_agree_on() -> None:
    assert kendall_tau([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # Five of six pairs agree: (5 - 1) / 6.
    assert kendall_tau([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)
    # Tau-b: one tied pair in one list, so the root of 6 * 5.
    assert kendall_tau([1, 2, 3, 4], [1, 2, 2, 4]) == pytest.approx(5 / math.sqrt(6 * 5))


@pytest.mark.parametrize("scores", [[], [1.0], [2.0, 2.0]])
def test_tau_is_none_without_an_order(scores: list[float]) -> None:
    assert kendall_tau(scores, list(range(len(scores)))) is None
