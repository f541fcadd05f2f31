"""The verdict on known pairs, by the kind of the score."""

from __future__ import annotations

import pytest

from rankd.ranking.self_check import KNOWN_PAIRS, MIN_MARGIN, Outcome


def problem(right: float, wrong: float, scale: float = 1.0, *, has_zero: bool = True) -> str | None:
    return Outcome(KNOWN_PAIRS[0], right, wrong, MIN_MARGIN * scale, has_zero).problem


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        (2.0, -2.0, None),
        (-2.0, 2.0, "wrong order"),
        (0.0, 0.0, "wrong order"),
        (float("nan"), 0.0, "wrong order"),
        (0.3, -0.3, "margin 0.60 < 1 nats"),
        (9.0, 5.0, "both on one side of 0.5"),
        (-5.0, -9.0, "both on one side of 0.5"),
    ],
)
def test_right_logits_are_in_order_apart_and_around_zero(
    right: float, wrong: float, expected: str | None
) -> None:
    assert problem(right, wrong) == expected


@pytest.mark.parametrize(("right", "wrong"), [(9.0, 5.0), (-5.0, -9.0), (2.0, -2.0)])
def test_the_logit_of_one_token_has_no_zero(right: float, wrong: float) -> None:
    assert problem(right, wrong, has_zero=False) is None
    assert problem(wrong, right, has_zero=False) == "wrong order"
    assert problem(float("nan"), wrong, has_zero=False) == "wrong order"


def test_a_scale_applies_to_the_margin_too() -> None:
    assert problem(0.15, -0.15, scale=0.2) is None
    assert problem(0.05, -0.05, scale=0.2) == "margin 0.10 < 0.2 nats"
