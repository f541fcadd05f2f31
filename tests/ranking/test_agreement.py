"""How far two scorings of the same documents agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rankd.ranking.agreement import agreement

LOGITS = st.lists(st.floats(-30, 30), min_size=2, max_size=40, unique=True)


@given(LOGITS, st.randoms(use_true_random=False))
def test_tau_is_that_of_scipy(first: list[float], random: object) -> None:
    second = list(first)
    random.shuffle(second)  # type: ignore[attr-defined]

    compared = agreement(first, second, 10)

    assert compared.tau == pytest.approx(stats.kendalltau(first, second).statistic)


def test_equal_scorings_agree_wholly() -> None:
    compared = agreement([1.0, 2.0, -3.0], [1.0, 2.0, -3.0], 2)

    assert (compared.same_top, compared.tau, compared.overlap, compared.shift) == (True, 1, 1, 0)


def test_reversed_orders_disagree_wholly() -> None:
    compared = agreement([3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0], 2)

    assert (compared.same_top, compared.tau, compared.overlap) == (False, -1, 0)


def test_equal_logits_keep_the_order_of_the_documents() -> None:
    assert agreement([0.0, 0.0, 0.0], [2.0, 1.0, 0.0], 3).tau == 1


def test_overlap_counts_the_best_k_or_all_documents_if_there_are_fewer() -> None:
    assert agreement([4.0, 3.0, 2.0, 1.0], [4.0, 1.0, 2.0, 3.0], 2).overlap == 0.5
    assert agreement([2.0, 1.0], [1.0, 2.0], 10).overlap == 1


def test_shift_is_the_mean_change_of_the_scores() -> None:
    assert agreement([0.0, 0.0], [100.0, 0.0], 1).shift == pytest.approx(0.25)


def test_one_document_has_no_tau() -> None:
    compared = agreement([1.0], [2.0], 10)

    assert (compared.tau, compared.same_top, compared.overlap) == (None, True, 1)
