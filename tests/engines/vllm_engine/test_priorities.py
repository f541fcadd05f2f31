"""Priority first, then a share for every call."""

from __future__ import annotations

from rankd.engines.vllm.priorities import Turns
from rankd.types import Prompt


def _prompts(count: int, tokens: int = 10) -> list[Prompt]:
    return [Prompt((1,), (2,) * (tokens - 1))] * count


def test_a_small_call_takes_turns_with_a_large_one_that_came_first() -> None:
    turns = Turns()

    large, small = turns.of(_prompts(1000), 0), turns.of(_prompts(5), 0)

    assert sum(turn < small[-1] for turn in large) == 4


def test_long_documents_wait_longer_than_short_ones() -> None:
    turns = Turns()

    long, short = turns.of(_prompts(10, tokens=1000), 0), turns.of(_prompts(10, tokens=10), 0)

    assert max(short) < long[1]


def test_who_comes_later_starts_where_the_others_are() -> None:
    turns = Turns()
    large = turns.of(_prompts(1000), 0)
    turns.passed(large[499])

    late = turns.of(_prompts(5), 0)

    assert late[0] == large[499]


def test_priority_outweighs_any_wait() -> None:
    turns = Turns()
    turns.passed(10**9)

    patient, normal, urgent = (turns.of(_prompts(1000), priority) for priority in (1, 0, -1))

    assert max(urgent) < min(normal)
    assert max(normal) < min(patient)


def test_any_priority_fits_in_the_64_bits_of_the_wire() -> None:
    for priority in (-(10**30), 10**30):
        [turn] = Turns().of(_prompts(1), priority)
        assert -(2**63) <= turn < 2**63


def test_the_clock_is_one_for_all_priorities() -> None:
    for priority in (-3, 0, 3):
        turns = Turns()
        turns.passed(turns.of(_prompts(2), priority)[1])
        assert turns.of(_prompts(1), 0) == [10]
