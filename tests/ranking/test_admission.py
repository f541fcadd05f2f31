"""Admission: all or nothing, always released, with a correct Retry-After."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankd.errors import TooLarge, TooManyRequests
from rankd.ranking.admission import Admission, Ticket


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def no_jitter() -> float:
    return 0.0


def _retry_after(call: Callable[[], object]) -> int | None:
    with pytest.raises(TooManyRequests) as refusal:
        call()
    return refusal.value.retry_after


@settings(deadline=None)
@given(
    requests=st.integers(0, 4),
    tokens=st.integers(0, 100),
    steps=st.lists(
        st.tuples(st.sampled_from(["enter", "done", "leave"]), st.integers(1, 150)), max_size=60
    ),
)
def test_limits_are_never_exceeded_and_everything_is_released(
    requests: int, tokens: int, steps: list[tuple[str, int]]
) -> None:
    admission = Admission(max_waiting_requests=requests, max_waiting_tokens=tokens)
    admitted: list[tuple[ExitStack, Ticket]] = []
    for step, number in steps:
        if step == "enter":
            with ExitStack() as stack:
                before = admission.tokens
                try:
                    ticket = stack.enter_context(admission.enter())
                    ticket.admit(number)
                except TooManyRequests:
                    assert admission.tokens == before
                    continue
                admitted.append((stack.pop_all(), ticket))
        elif admitted:
            stack, ticket = admitted.pop(number % len(admitted))
            if step == "done":
                ticket.done()
            stack.close()

        assert admission.requests == len(admitted)
        assert admission.tokens == sum(ticket.tokens for _, ticket in admitted)
        assert not requests or admission.requests <= requests
        # A request above the limit is admitted only while nothing else waits.
        assert not tokens or admission.tokens <= tokens or len(admitted) == 1
    for stack, _ in admitted:
        stack.close()

    assert (admission.requests, admission.tokens) == (0, 0)


def test_a_request_above_the_request_limit_is_refused_with_the_numbers() -> None:
    admission = Admission(max_request_tokens=1_000)

    with admission.enter() as ticket, pytest.raises(TooLarge, match=r"1,001 .*limit is 1,000"):
        ticket.admit(1_001)
    with admission.enter() as ticket:
        ticket.admit(1_000)


def test_a_request_whose_lower_bound_is_too_large_is_not_counted() -> None:
    admission = Admission(max_request_tokens=1_000)

    with pytest.raises(TooLarge), admission.enter(min_tokens=1_001):
        pass
    assert admission.requests == 0


def test_a_request_above_the_queue_limit_is_admitted_when_nothing_else_waits() -> None:
    admission = Admission(max_waiting_tokens=100)
    with admission.enter() as small, admission.enter() as large:
        small.admit(1)
        with pytest.raises(TooManyRequests, match="1 tokens wait already"):
            large.admit(500)
        small.done()
        large.admit(500)

        assert admission.tokens == 500


def test_unscored_tokens_are_released_and_do_not_count_for_the_drain_rate() -> None:
    clock = Clock()
    admission = Admission(clock=clock, jitter=no_jitter)
    with admission.enter() as ticket:
        ticket.admit(100)
        clock.now += 1
        ticket.done(unscored=40)

        assert admission.tokens == 40
    assert admission.tokens == 0
    assert admission.seconds_for(600) == 10


def test_retry_after_is_the_work_that_must_drain_at_the_measured_rate() -> None:
    clock = Clock()
    admission = Admission(max_waiting_tokens=1_000, clock=clock, jitter=no_jitter)
    with admission.enter() as first, admission.enter() as second, admission.enter() as third:
        first.admit(100)
        second.admit(900)
        clock.now += 1
        first.done()

        # The rate is 100 tokens per second. 100 tokens are free; the others that a request
        # needs must drain from the 900 that wait.
        assert _retry_after(lambda: third.admit(300)) == 2
        assert _retry_after(lambda: third.admit(700)) == 6


def test_retry_after_falls_as_work_drains_and_then_the_request_fits() -> None:
    clock = Clock()
    admission = Admission(max_waiting_tokens=1_000, clock=clock, jitter=no_jitter)
    with ExitStack() as stack:
        tickets = [stack.enter_context(admission.enter()) for _ in range(11)]
        *waiting, late = tickets
        for ticket in waiting:
            ticket.admit(100)
        seconds = []
        for ticket in waiting:
            clock.now += 2
            ticket.done()
            if admission.tokens:
                seconds.append(_retry_after(lambda: late.admit(1_000)))

        assert seconds == [18, 16, 14, 12, 10, 8, 6, 4, 2]
        late.admit(1_000)


def _with_rate_of_100_per_second(**limits: int) -> Admission:
    clock = Clock()
    admission = Admission(clock=clock, jitter=no_jitter, **limits)
    with admission.enter() as ticket:
        ticket.admit(100)
        clock.now += 1
        ticket.done()
    return admission


def test_retry_after_of_a_request_above_the_limit_is_the_time_to_drain_everything() -> None:
    admission = _with_rate_of_100_per_second(max_waiting_tokens=1_000)
    with admission.enter() as first, admission.enter() as large:
        first.admit(300)

        assert _retry_after(lambda: large.admit(5_000)) == 3


def test_retry_after_of_the_request_limit_is_the_time_of_a_mean_request() -> None:
    admission = _with_rate_of_100_per_second(max_waiting_requests=2)
    with admission.enter() as first, admission.enter() as second:
        first.admit(300)
        second.admit(500)

        assert _retry_after(lambda: admission.enter().__enter__()) == 4


def test_a_fully_cached_request_is_admitted_to_a_full_queue() -> None:
    admission = Admission(max_waiting_tokens=1_000)
    with admission.enter() as large, admission.enter(0) as known:
        large.admit(5_000)
        known.admit(0)

        assert admission.tokens == 5_000


def test_before_the_first_measurement_retry_after_is_the_time_worked_so_far() -> None:
    clock = Clock()
    admission = Admission(max_waiting_tokens=100, clock=clock, jitter=no_jitter)
    with admission.enter() as first, admission.enter() as second:
        first.admit(100)
        assert _retry_after(lambda: second.admit(1)) == 1
        clock.now += 7
        assert _retry_after(lambda: second.admit(1)) == 7
        clock.now += 5_000
        assert _retry_after(lambda: second.admit(1)) == 60


def test_idle_time_does_not_lower_the_drain_rate() -> None:
    clock = Clock()
    admission = Admission(max_waiting_tokens=1_000, clock=clock, jitter=no_jitter)
    with admission.enter() as first:
        first.admit(1_000)
        clock.now += 1
        first.done()
    clock.now += 40_000
    with admission.enter() as first, admission.enter() as second:
        first.admit(1_000)

        assert _retry_after(lambda: second.admit(500)) == 1


def test_old_work_does_not_count_for_the_drain_rate() -> None:
    clock = Clock()
    admission = Admission(max_waiting_tokens=1_000, clock=clock, jitter=no_jitter)
    for tokens, seconds in [(1_000, 1.0), *[(100, 10.0)] * 4]:
        with admission.enter() as ticket:
            ticket.admit(tokens)
            clock.now += seconds
            ticket.done()
    with admission.enter() as first, admission.enter() as second:
        first.admit(1_000)

        assert _retry_after(lambda: second.admit(200)) == 20  # 10 tokens per second.


def test_requests_longer_than_the_window_do_not_raise_the_drain_rate() -> None:
    clock = Clock()
    admission = Admission(clock=clock, jitter=no_jitter)
    for _ in range(3):
        with admission.enter() as ticket:
            ticket.admit(6_000)
            clock.now += 600
            ticket.done()

        # Ten tokens per second, not 6,000 in half a minute.
        assert admission.seconds_for(300) == 30


def test_many_small_requests_share_buckets() -> None:
    clock = Clock()
    admission = Admission(clock=clock, jitter=no_jitter)
    for _ in range(20_000):
        with admission.enter() as ticket:
            ticket.admit(10)
            clock.now += 0.001
            ticket.done()

    assert len(admission._drain._finished) <= 310
    assert 9_000 < admission._drain.rate() < 11_000


def test_abandoned_tokens_do_not_count_for_the_drain_rate() -> None:
    clock = Clock()
    admission = Admission(max_waiting_tokens=1_000, clock=clock, jitter=no_jitter)
    with admission.enter() as first, admission.enter() as second, admission.enter() as third:
        first.admit(100)
        second.admit(900)
        clock.now += 1
        first.done()
        second.leave()
        second.admit(1_000)

        assert _retry_after(lambda: third.admit(500)) == 5


def test_clients_that_are_refused_together_come_back_while_the_backlog_drains() -> None:
    """Ten seconds of work wait: no one waits longer than that, and they do not come together."""
    clock = Clock()
    numbers = iter([0.0, 0.25, 0.5, 0.75, 0.999])
    admission = Admission(max_waiting_tokens=1_000, clock=clock, jitter=lambda: next(numbers))
    with ExitStack() as stack:
        first, second, late = [stack.enter_context(admission.enter()) for _ in range(3)]
        first.admit(100)
        clock.now += 1
        first.done()
        second.admit(1_000)

        assert [_retry_after(lambda: late.admit(200)) for _ in range(5)] == [2, 4, 6, 8, 10]


def test_retry_after_is_random_by_default() -> None:
    clock = Clock()
    admission = Admission(max_waiting_tokens=1_000, clock=clock)
    with admission.enter() as first, admission.enter() as second:
        first.admit(1_000)
        clock.now += 20

        assert len({_retry_after(lambda: second.admit(500)) for _ in range(50)}) > 5
