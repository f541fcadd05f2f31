"""The scheduler on every engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from rankd.errors import DeadlineExceeded
from rankd.ranking.fair_queue import AGEING_BOUND
from rankd.types import BACKGROUND_PRIORITY
from support.engines import ENGINES, Opened, opened_engine, random_prompts


@pytest.fixture(scope="module", params=ENGINES)
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Opened]:
    with opened_engine(request.param, tmp_path_factory.mktemp("engine")) as opened:
        yield opened


def test_cancelling_a_call_does_not_change_the_others(opened: Opened) -> None:
    prompts = random_prompts(30, seed=4)

    async def cancel_one() -> list[float]:
        cancelled = asyncio.create_task(opened.scheduler.score(random_prompts(600, seed=5)))
        kept = asyncio.create_task(opened.scheduler.score(prompts))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        return await kept

    logits = opened.run(cancel_one())

    assert logits == pytest.approx(opened.score(prompts), abs=1e-4)


def test_a_deadline_that_has_passed_is_an_error_and_later_calls_are_scored(opened: Opened) -> None:
    prompts = random_prompts(5, seed=6)

    async def too_late() -> list[float]:
        late = opened.scheduler.score(random_prompts(400, seed=7), deadline=time.monotonic() - 1)
        with pytest.raises(DeadlineExceeded):
            await late
        return await opened.scheduler.score(prompts, deadline=time.monotonic() + 60)

    assert opened.run(too_late()) == pytest.approx(opened.score(prompts), abs=1e-4)


def test_a_deadline_midway_keeps_what_was_scored(opened: Opened) -> None:
    prompts = random_prompts(2000, seed=11)
    logits = opened.score(prompts)

    async def score(seconds: float) -> tuple[float | None, ...]:
        deadline = time.monotonic() + seconds

        def wait_for_deadline(index: int, logit: float) -> None:
            # The event loop stands still until then, so no other batch can be sent.
            time.sleep(max(0.0, deadline - time.monotonic()))

        with pytest.raises(DeadlineExceeded) as late:
            await opened.scheduler.score(prompts, deadline=deadline, on_logit=wait_for_deadline)
        return late.value.logits

    # A slow machine may need longer for the first batch.
    for seconds in (0.5, 2, 8, 32):
        some = opened.run(score(seconds))
        scored = [index for index, logit in enumerate(some) if logit is not None]
        if scored:
            break
    assert len(some) == 2000
    assert 0 < len(scored) < 2000
    assert [some[index] for index in scored] == pytest.approx(
        [logits[index] for index in scored], abs=1e-4
    )


def test_a_deadline_that_has_passed_leaves_nothing_scored(opened: Opened) -> None:
    async def too_late() -> tuple[float | None, ...]:
        with pytest.raises(DeadlineExceeded) as late:
            await opened.scheduler.score(random_prompts(400, seed=7), deadline=time.monotonic() - 1)
        return late.value.logits

    assert opened.run(too_late()) == (None,) * 400


def test_an_urgent_call_overtakes_a_patient_one(opened: Opened) -> None:
    finished = []

    async def score(name: str, count: int, priority: int) -> None:
        await opened.scheduler.score(random_prompts(count, seed=8), priority=priority)
        finished.append(name)

    async def race() -> None:
        await asyncio.gather(score("patient", 300, 1), score("urgent", 5, 0))

    opened.run(race())

    assert finished == ["urgent", "patient"]


def test_a_small_call_does_not_wait_for_a_large_one(opened: Opened) -> None:
    finished = []

    async def score(name: str, count: int) -> None:
        await opened.scheduler.score(random_prompts(count, seed=9))
        finished.append(name)

    async def race() -> None:
        await asyncio.gather(score("large", 300), score("small", 5))

    opened.run(race())

    assert finished == ["small", "large"]


def test_every_logit_is_streamed_while_the_call_runs(opened: Opened) -> None:
    prompts = random_prompts(600, seed=21)
    logits_seen: list[tuple[int, float]] = []
    seen: set[int] = set()

    async def listen() -> list[float]:
        scoring = opened.scheduler.score(
            prompts, on_logit=lambda index, logit: logits_seen.append((index, logit))
        )
        call = asyncio.create_task(scoring)
        while not call.done():
            seen.add(len(logits_seen))
            await asyncio.sleep(0)
        return await call

    logits = opened.run(listen())

    assert dict(logits_seen) == dict(enumerate(logits))
    assert len(logits_seen) == 600
    assert len(seen - {0, 600}) > 1


def test_nothing_is_streamed_after_a_call_was_cancelled(opened: Opened) -> None:
    logits_seen: list[int] = []

    async def leave() -> int:
        first = asyncio.Event()

        def listen(index: int, logit: float) -> None:
            logits_seen.append(index)
            first.set()

        scoring = opened.scheduler.score(random_prompts(900, seed=22), on_logit=listen)
        call = asyncio.create_task(scoring)
        await first.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        streamed = len(logits_seen)
        await opened.scheduler.score(random_prompts(200, seed=23))
        return streamed

    streamed = opened.run(leave())

    assert 0 < streamed < 900
    assert len(logits_seen) == streamed


@pytest.mark.parametrize(
    ("crowd", "single"),
    [
        (("crowd", ""), ("single", "")),
        (("shared", "crowd"), ("shared", "single")),
    ],
    ids=["keys", "users"],
)
def test_a_single_call_does_not_wait_for_the_many_of_another_key_or_user(
    opened: Opened, crowd: tuple[str, str], single: tuple[str, str]
) -> None:
    finished: list[str] = []

    async def score(name: str, seed: int, key: str, user: str) -> None:
        await opened.scheduler.score(random_prompts(100, seed), key=key, user=user)
        finished.append(name)

    async def race() -> None:
        calls = [score("crowd", seed, *crowd) for seed in range(30, 42)]
        await asyncio.gather(*calls, score("single", 42, *single))

    opened.run(race())

    assert len(finished) == 13
    # With equal shares it ends when the crowd got the tokens of one call, give or take.
    assert finished.index("single") <= 3


@pytest.mark.parametrize("priority", [1, 999, BACKGROUND_PRIORITY])
def test_a_low_priority_is_served_within_its_bound_under_endless_load(
    opened: Opened, priority: int
) -> None:
    low, load = random_prompts(12, seed=50), random_prompts(30, seed=51)
    served = 0

    def count(index: int, logit: float) -> None:
        nonlocal served
        served += len(load[index])

    async def keep_busy() -> None:
        while True:
            await opened.scheduler.score(load, priority=0, on_logit=count)

    async def race() -> None:
        busy = [asyncio.create_task(keep_busy()) for _ in range(4)]
        await asyncio.sleep(0)
        await opened.scheduler.score(low, priority=priority)
        for task in busy:
            task.cancel()
        await asyncio.wait(busy)

    opened.run(race())

    waiting = sum(map(len, low)) + max(map(len, load))
    in_flight = (opened.engine.slots.count + 1) * opened.engine.info.batch_tokens
    assert served <= AGEING_BOUND * waiting + in_flight
