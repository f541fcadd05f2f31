"""The `Engine` contract, on every engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from rankd.types import Prompt
from support.engines import ENGINES, Opened, opened_engine, random_prompts
from support.yardstick import scaled


@pytest.fixture(scope="module", params=ENGINES)
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Opened]:
    with opened_engine(request.param, tmp_path_factory.mktemp("engine")) as opened:
        yield opened


def score(opened: Opened, batch: list[Prompt]) -> list[float]:
    return opened.run(opened.engine.score(batch))


def test_n_prompts_give_n_logits_in_their_order(opened: Opened) -> None:
    prompts = random_prompts(40)

    together = score(opened, prompts)
    alone = [score(opened, [prompt])[0] for prompt in prompts]

    assert len(set(together)) > 20
    assert together == pytest.approx(alone, abs=1e-4)


def test_the_order_of_the_prompts_is_the_order_of_the_logits(opened: Opened) -> None:
    prompts = random_prompts(30, seed=1)

    backwards = score(opened, prompts[::-1])

    assert backwards[::-1] == pytest.approx(score(opened, prompts), abs=1e-4)


def test_one_call_may_have_prompts_with_different_prefixes(opened: Opened) -> None:
    mixed = [
        prompt
        for pair in zip(random_prompts(9, 2), random_prompts(9, 3), strict=True)
        for prompt in pair
    ]

    logits = score(opened, mixed)

    assert logits[::2] == pytest.approx(score(opened, mixed[::2]), abs=1e-4)
    assert logits[1::2] == pytest.approx(score(opened, mixed[1::2]), abs=1e-4)


def test_a_prompt_of_max_tokens_is_scored(opened: Opened) -> None:
    longest = Prompt((1, 2, 3), (4,) * (opened.engine.info.max_tokens - 3))

    assert len(score(opened, [longest, longest])) == 2


def test_concurrent_calls_get_their_own_answers(opened: Opened) -> None:
    requests = [random_prompts(1 + 3 * index, seed=index) for index in range(12)]

    async def all_at_once() -> list[list[float]]:
        return await asyncio.gather(*map(opened.engine.score, requests))

    answers = opened.run(all_at_once())

    for request, answer in zip(requests, answers, strict=True):
        assert answer == pytest.approx(score(opened, request), abs=1e-4)


def test_the_event_loop_runs_while_the_engine_computes(opened: Opened) -> None:
    gaps = []

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - before)

    async def watch() -> float:
        ticking = asyncio.create_task(tick())
        before = time.monotonic()
        await opened.engine.score(random_prompts(300, seed=10))
        took = time.monotonic() - before
        await asyncio.sleep(0.02)
        ticking.cancel()
        return took

    took = opened.run(watch())

    # An engine that blocks stops the loop for all of the time, which is seconds.
    assert max(gaps) < max(scaled(0.7), took / 2)


def test_an_open_engine_is_healthy_and_describes_itself(opened: Opened) -> None:
    opened.run(opened.engine.check())

    assert opened.engine.info.name in {"native", "vllm", "fake"}
    assert opened.engine.info.model == "model"
    assert opened.engine.info.max_tokens == 512
