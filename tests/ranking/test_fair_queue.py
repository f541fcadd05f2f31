"""Fair queueing over tokens, without a model, a clock or an event loop."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankd.ranking.fair_queue import AGEING_BOUND, FairQueue, QueuedCall
from rankd.types import Prompt


def _call(*lengths: int, priority: int = 0, prefix: int = 0) -> QueuedCall:
    shared = (1,) * prefix
    return QueuedCall([Prompt(shared, (2,) * length) for length in lengths], priority=priority)


def _queue(*calls: QueuedCall, slice_tokens: int = 1) -> FairQueue:
    queue = FairQueue(slice_tokens)
    for call in calls:
        queue.add(call)
    return queue


def _names(batch: Iterable[tuple[QueuedCall, int]], **calls: QueuedCall) -> str:
    names = {call: name for name, call in calls.items()}
    return "".join(names[call] for call, _ in batch)


def test_prompts_of_a_call_are_handed_out_in_order() -> None:
    call = _call(3, 1, 2)

    assert _queue(call).take(100) == [(call, 0), (call, 1), (call, 2)]


def test_an_empty_queue_gives_an_empty_batch() -> None:
    assert _queue().take(100) == []


def test_a_batch_stays_within_its_budget_but_is_never_empty() -> None:
    queue = _queue(_call(40, 40, 40, 500, 10))

    assert [len(queue.take(100)) for _ in range(4)] == [2, 1, 1, 1]
    assert queue.take(100) == []


def test_a_prefix_costs_tokens_once_per_run_of_prompts() -> None:
    queue = _queue(_call(*[10] * 12, prefix=50))

    assert [len(queue.take(100)) for _ in range(2)] == [5, 7]


def test_lower_priority_goes_first() -> None:
    late, soon = _call(1, 1, priority=5), _call(1, 1, priority=-1)

    assert _names(_queue(late, soon).take(100), l=late, s=soon) == "ssll"


def test_calls_take_turns() -> None:
    a, b, c = _call(1, 1, 1), _call(1, 1), _call(1)

    assert _names(_queue(a, b, c).take(100), a=a, b=b, c=c) == "abcaba"


def test_shares_are_counted_in_tokens_not_in_prompts() -> None:
    long, short = _call(30, 30, 30), _call(10, 10, 10, 10, 10)

    order = _names(_queue(long, short).take(1000), L=long, s=short)

    assert order == "LsssLssL"


def test_a_late_call_neither_jumps_ahead_for_long_nor_waits_for_the_large_one() -> None:
    large = _call(*[10] * 1000)
    queue = _queue(large)
    queue.take(5000)
    small = _call(10, 10, 10)
    queue.add(small)

    batch = _names(queue.take(100), L=large, s=small)

    assert batch.count("s") == 3
    assert batch.count("L") == 7
    assert "ss" not in batch


def test_a_removed_call_leaves_no_tokens() -> None:
    removed, kept = _call(10, 10), _call(10, 10)
    queue = _queue(removed, kept)

    queue.remove(removed)

    assert queue.tokens == 20
    assert _names(queue.take(100), k=kept) == "kk"
    assert queue.tokens == 0
    assert queue.take(100) == []


def test_removing_twice_or_after_the_end_changes_nothing() -> None:
    call = _call(10, 10)
    queue = _queue(call)
    queue.take(15)

    queue.remove(call)
    queue.remove(call)

    assert queue.tokens == 0
    assert queue.take(100) == []


@given(
    calls=st.lists(
        st.tuples(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(-2, 2)),
        max_size=8,
    ),
    budget=st.integers(1, 120),
    slice_tokens=st.integers(1, 120),
)
def test_every_prompt_is_handed_out_once(
    calls: list[tuple[list[int], int]], budget: int, slice_tokens: int
) -> None:
    waiting = [_call(*lengths, priority=priority) for lengths, priority in calls]
    queue = _queue(*waiting, slice_tokens=slice_tokens)

    seen = []
    while batch := queue.take(budget):
        sizes = [len(call.prompts[index].suffix) for call, index in batch]
        assert sum(sizes) <= budget or len(batch) == 1
        seen += batch

    expected = [(call, index) for call in waiting for index in range(len(call.prompts))]
    assert sorted(seen, key=expected.index) == expected
    assert queue.tokens == 0


def test_a_call_is_served_in_slices() -> None:
    a, b, c = _call(*[10] * 5), _call(*[10] * 4), _call(10, 10)
    queue = _queue(a, b, c, slice_tokens=30)

    order = "".join(_names(queue.take(20), a=a, b=b, c=c) for _ in range(6))

    assert order == "aaabbbccaab"


def test_keys_take_turns_by_slices_too() -> None:
    others = [_owned("other", *[10] * 3) for _ in range(3)]
    mine = _owned("me", *[10] * 6)
    queue = _queue(*others, mine, slice_tokens=30)

    keys = [call.path[0] for call, _ in queue.take(120)]

    assert keys == ["other"] * 3 + ["me"] * 3 + ["other"] * 3 + ["me"] * 3


def test_a_newcomer_in_the_middle_of_a_slice_is_next_after_it() -> None:
    large = _call(*[10] * 100)
    queue = _queue(large, slice_tokens=40)
    queue.take(220)
    queue.add(small := _call(10, 10, 10))

    assert _names(queue.take(100), L=large, s=small) == "LLsssLLLLL"


def test_many_small_calls_do_not_starve_a_large_one() -> None:
    large = _call(*[10] * 1000)
    queue = _queue(large, slice_tokens=50)
    queue.take(500)
    seen = []

    for _ in range(200):
        queue.add(_call(10, 10, 10, 10))
        seen += queue.take(40)

    # The small calls alone use the whole engine, and more and more of them wait.
    assert sum(call is large for call, _ in seen) > len(seen) / 20


def test_after_a_call_is_removed_within_its_slice_the_next_call_gets_a_whole_one() -> None:
    removed, a, b = _call(*[10] * 9), _call(*[10] * 9), _call(*[10] * 9)
    queue = _queue(removed, a, b, slice_tokens=30)
    queue.take(20)

    queue.remove(removed)

    assert _names(queue.take(60), a=a, b=b) == "aaabbb"


def _owned(caller: str, *lengths: int, priority: int = 0) -> QueuedCall:
    prompts = [Prompt((), (2,) * length) for length in lengths]
    return QueuedCall(prompts, priority=priority, path=caller.split("/", 1))


def test_keys_get_equal_shares_however_many_calls_each_has() -> None:
    many = [_owned("many", *[10] * 20) for _ in range(9)]
    single = _owned("single", *[10] * 20)

    batch = _queue(*many, single).take(200)

    assert sum(call is single for call, _ in batch) == 10
    assert {sum(call is other for call, _ in batch) for other in many} == {1, 2}


def test_a_key_with_many_users_gets_no_more_than_a_key_with_one() -> None:
    users = [_owned(f"one/user {number}", *[10] * 20) for number in range(9)]
    single = _owned("other/", *[10] * 20)

    batch = _queue(*users, single).take(200)

    assert sum(call is single for call, _ in batch) == 10
    assert {sum(call is user for call, _ in batch) for user in users} == {1, 2}


@pytest.mark.parametrize(("large", "crowd"), [("large/", "crowd/{}"), ("key/large", "key/crowd")])
def test_keys_and_users_are_charged_for_tokens_served_out_of_turn(large: str, crowd: str) -> None:
    queue = _queue(_owned(large, *[10] * 5000))
    shares = {True: 0, False: 0}
    waiting: list[QueuedCall] = []
    for number in range(100):
        waiting = [call for call in waiting if call.waiting]
        while len(waiting) < 7:
            waiting.append(_owned(crowd.format(number), *[10] * 4))
            queue.add(waiting[-1])
        for call, _ in queue.next_batch(100):
            shares[call.path == large.split("/", 1)] += 1

    assert 0.8 < shares[True] / shares[False] < 1.25


def test_a_key_that_comes_back_gets_no_credit() -> None:
    queue = _queue(_owned("busy", *[10] * 100), first := _owned("guest", 10))
    queue.take(500)
    second = _owned("guest", *[10] * 50)
    queue.add(second)

    batch = [call for call, _ in queue.take(200)]

    assert first.waiting == 0
    assert batch.count(second) == 10


def test_a_key_that_comes_back_at_once_is_not_delayed() -> None:
    queue = _queue(_owned("busy", *[10] * 100), _owned("guest", 50))
    queue.take(60)
    again = _owned("guest", 10)
    queue.add(again)

    assert again in [call for call, _ in queue.take(20)]


def test_a_key_that_left_and_came_back_is_removed_only_once() -> None:
    first = _owned("guest", *[50] * 2)
    queue = _queue(_owned("busy", *[10] * 20), first)
    queue.take(60)
    queue.remove(first)
    again = _owned("guest", *[10] * 20)
    queue.add(again)

    assert sum(call is again for call, _ in queue.take(1_000)) == 20


def test_keys_without_calls_are_removed() -> None:
    queue = _queue(_call(*[1] * 5000))
    for number in range(1000):
        queue.add(_owned(f"caller {number}", 1))
        queue.take(3)

    [priority_class] = queue._classes.values()

    assert len(priority_class._children) < 5


def test_a_low_priority_gets_one_token_in_17_and_does_not_starve() -> None:
    low = _call(*[10] * 100, priority=999)
    queue = _queue(low, *(_call(*[10] * 1000, priority=0) for _ in range(2)))

    batch = [call for call, _ in queue.take(17 * 10 * 20)]

    assert batch.count(low) == 20
    assert low not in batch[:15]


def test_lower_priorities_get_equal_parts_of_the_reserved_share() -> None:
    low = [_call(*[10] * 5, priority=priority) for priority in (3, 500, 999)]
    queue = _queue(*low, _call(*[10] * 1000))

    late = [call.priority for call, _ in queue.take(10_000) if call.priority][:6]

    assert sorted(late[:3]) == sorted(late[3:]) == [3, 500, 999]


def test_no_share_is_reserved_while_no_low_priority_waits() -> None:
    queue = _queue(_call(*[10] * 1000))
    queue.take(9_000)
    low = _call(10, 10, priority=5)
    queue.add(low)

    assert low not in [call for call, _ in queue.take(150)]


def test_batches_are_half_as_large_while_many_batches_wait() -> None:
    large = _call(*[10] * 1000)
    queue = _queue(large)
    small = _call(10, 10, 10, 10)

    alone = queue.next_batch(100)
    queue.add(small)
    together = queue.next_batch(100)

    assert len(alone) == 5
    # Half of the budget in turns, then the rest of the small call, which fits.
    assert _names(together, L=large, s=small) in ("sLsLss", "LsLsLss")


def test_batches_are_full_while_few_wait_and_when_they_may_not_be_short() -> None:
    few = _queue(_call(*[10] * 20), _call(*[10] * 20))
    many = _queue(*[_call(*[10] * 20) for _ in range(30)])

    assert len(few.next_batch(100)) == 10
    assert len(many.next_batch(100, short=False)) == 10
    assert len(many.next_batch(100)) == 5


def test_tokens_served_out_of_turn_are_charged_at_the_next_turn() -> None:
    large = _owned("large", *[10] * 5000)
    queue = _queue(large)
    shares: dict[str, int] = {"large": 0, "crowd": 0}
    waiting: list[QueuedCall] = []
    for _ in range(100):
        waiting = [call for call in waiting if call.waiting]
        while len(waiting) < 7:
            waiting.append(_owned("crowd", *[10] * 4))
            queue.add(waiting[-1])
        for call, _ in queue.next_batch(100):
            shares[call.path[0]] += 1

    assert 0.8 < shares["large"] / shares["crowd"] < 1.25


@settings(deadline=None)
@given(
    calls=st.lists(
        st.tuples(
            st.lists(st.integers(1, 50), min_size=1, max_size=12),
            st.integers(-2, 2),
            st.sampled_from(["a", "b", "a/x", "a/y", "b/x"]),
            st.integers(0, 9),
        ),
        max_size=5,
    ),
    budget=st.integers(1, 120),
)
def test_smaller_batches_hand_out_every_prompt_once_too(
    calls: list[tuple[list[int], int, str, int]], budget: int
) -> None:
    waiting = []
    for lengths, priority, caller, prefix in calls:
        # Each prompt has a prefix of its own, as several queries of one request have.
        prompts = [Prompt(tuple([1] * prefix), (2,) * length) for length in lengths]
        waiting.append(QueuedCall(prompts, priority=priority, path=caller.split("/", 1)))
    queue = _queue(*waiting)

    seen = []
    while batch := queue.next_batch(budget):
        sizes = [len(call.prompts[index]) for call, index in batch]
        prefixes = {id(call.prompts[index].prefix) for call, index in batch}
        assert sum(sizes) <= budget or len(batch) == 1 or len(prefixes) < len(batch)
        seen += batch

    expected = [(call, index) for call in waiting for index in range(len(call.prompts))]
    assert sorted(seen, key=expected.index) == expected
    assert queue.tokens == 0


@settings(deadline=None, max_examples=200)
@given(
    low=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    others=st.lists(st.integers(1, 998), max_size=4, unique=True),
    load=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    budget=st.integers(40, 300),
)
def test_a_call_of_the_lowest_priority_is_served_within_the_bound_under_endless_load(
    low: list[int], others: list[int], load: list[int], budget: int
) -> None:
    queue = FairQueue(slice_tokens=budget // 2)
    lowest = _call(*low, priority=999)
    queue.add(lowest)
    for priority in others:
        queue.add(_call(*[40] * 2_000, priority=priority))
    classes, longest = 1 + len(others), 40
    bound = AGEING_BOUND * classes * (sum(low) + longest) + budget

    served, calls = 0, list[QueuedCall]()
    while lowest.waiting:
        assert served <= bound
        calls = [call for call in calls if call.waiting]
        while sum(call.waiting_tokens for call in calls) < 4 * budget:
            calls.append(_call(*load, priority=0))
            queue.add(calls[-1])
        served += sum(len(call.prompts[index]) for call, index in queue.next_batch(budget))
