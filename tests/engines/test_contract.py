"""What every engine promises, asked of every engine."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rankd.config.settings import Settings
from rankd.engines import open_engine
from rankd.engines.base import Engine, heard_by
from rankd.errors import DeadlineExceeded
from rankd.models.checkpoint import locate
from rankd.types import AnswerTokenIds, Prompt
from support.checkpoints import NO, YES, make_checkpoint

Result = TypeVar("Result")

ENGINES = ["native", "fake", pytest.param("vllm", marks=pytest.mark.vllm)]


@dataclass(frozen=True)
class Opened:
    """An engine, and the loop it lives on."""

    engine: Engine
    runner: asyncio.Runner

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    def score(self, prompts: list[Prompt]) -> list[float]:
        return self.run(self.engine.score(prompts))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # vLLM looks "yes" and "no" up in a tokenizer, and on CPUs takes heads of 32 and more.
    return make_checkpoint(tmp_path_factory.mktemp("contract") / "model", head_dim=32)


@pytest.fixture(scope="module", params=ENGINES)
def opened(request: pytest.FixtureRequest, checkpoint: Path) -> Iterator[Opened]:
    settings = Settings(engine=request.param, device="cpu", max_tokens=512, batch_tokens=256)
    with asyncio.Runner() as runner:
        context = open_engine(locate(str(checkpoint)), AnswerTokenIds(YES, NO), settings)
        yield Opened(runner.run(context.__aenter__()), runner)
        runner.run(context.__aexit__(None, None, None))


def _prompts(count: int, seed: int = 0) -> list[Prompt]:
    """One request: a shared head, tails of many lengths that share words with it."""
    dice = random.Random(seed)
    head = tuple(dice.randrange(151_000) for _ in range(20))
    return [
        Prompt(head, tuple(dice.choice(head) + dice.randrange(3) for _ in range(length)))
        for length in (dice.randrange(1, 60) for _ in range(count))
    ]


def test_n_prompts_give_n_logits_in_their_order(opened: Opened) -> None:
    prompts = _prompts(40)

    together = opened.score(prompts)
    alone = [opened.score([prompt])[0] for prompt in prompts]

    assert len(set(together)) > 20
    assert together == pytest.approx(alone, abs=1e-4)


def test_the_order_of_the_prompts_is_the_order_of_the_logits(opened: Opened) -> None:
    prompts = _prompts(30, seed=1)

    backwards = opened.score(prompts[::-1])

    assert backwards[::-1] == pytest.approx(opened.score(prompts), abs=1e-4)


def test_one_call_may_hold_prompts_of_several_heads(opened: Opened) -> None:
    mixed = [prompt for pair in zip(_prompts(9, 2), _prompts(9, 3), strict=True) for prompt in pair]

    logits = opened.score(mixed)

    assert logits[::2] == pytest.approx(opened.score(mixed[::2]), abs=1e-4)
    assert logits[1::2] == pytest.approx(opened.score(mixed[1::2]), abs=1e-4)


def test_a_prompt_as_long_as_the_engine_takes_is_scored(opened: Opened) -> None:
    longest = Prompt((1, 2, 3), (4,) * (opened.engine.info.max_tokens - 3))

    assert len(opened.score([longest, longest])) == 2


def test_concurrent_calls_get_their_own_answers(opened: Opened) -> None:
    requests = [_prompts(1 + 3 * place, seed=place) for place in range(12)]

    async def all_at_once() -> list[list[float]]:
        return await asyncio.gather(*map(opened.engine.score, requests))

    answers = opened.run(all_at_once())

    for request, answer in zip(requests, answers, strict=True):
        assert answer == pytest.approx(opened.score(request), abs=1e-4)


def test_cancelling_a_call_leaves_the_others_right(opened: Opened) -> None:
    wanted = _prompts(30, seed=4)

    async def cancel_one() -> list[float]:
        doomed = asyncio.create_task(opened.engine.score(_prompts(600, seed=5)))
        kept = asyncio.create_task(opened.engine.score(wanted))
        await asyncio.sleep(0)
        doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        return await kept

    logits = opened.run(cancel_one())

    assert logits == pytest.approx(opened.score(wanted), abs=1e-4)


def test_a_deadline_that_has_passed_is_an_error_and_harms_nobody(opened: Opened) -> None:
    prompts = _prompts(5, seed=6)

    async def too_late() -> list[float]:
        late = opened.engine.score(_prompts(400, seed=7), deadline=time.monotonic() - 1)
        with pytest.raises(DeadlineExceeded):
            await late
        return await opened.engine.score(prompts, deadline=time.monotonic() + 60)

    assert opened.run(too_late()) == pytest.approx(opened.score(prompts), abs=1e-4)


def test_a_deadline_midway_keeps_what_was_scored(opened: Opened) -> None:
    prompts = _prompts(400, seed=11)
    began = time.monotonic()
    logits = opened.score(prompts)
    needed = time.monotonic() - began

    async def score(seconds: float) -> tuple[float | None, ...]:
        with pytest.raises(DeadlineExceeded) as late:
            await opened.engine.score(prompts, deadline=time.monotonic() + seconds)
        return late.value.logits

    # How far an engine comes in half of the time is its own business; none, now and then.
    for share in (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.5):
        try:
            some = opened.run(score(needed * share))
        except pytest.fail.Exception:
            continue  # It was faster this time.
        scored = [place for place, logit in enumerate(some) if logit is not None]
        assert len(some) == 400
        assert [some[place] for place in scored] == pytest.approx(
            [logits[place] for place in scored], abs=1e-4
        )
        if 0 < len(scored) < 400:
            return
    pytest.fail("no deadline ever fell between the first document and the last")


def test_a_deadline_that_has_passed_leaves_nothing_scored(opened: Opened) -> None:
    async def too_late() -> tuple[float | None, ...]:
        with pytest.raises(DeadlineExceeded) as late:
            await opened.engine.score(_prompts(400, seed=7), deadline=time.monotonic() - 1)
        return late.value.logits

    assert opened.run(too_late()) == (None,) * 400


def test_what_is_urgent_overtakes_what_is_not(opened: Opened) -> None:
    finished = []

    async def score(name: str, count: int, priority: int) -> None:
        await opened.engine.score(_prompts(count, seed=8), priority=priority)
        finished.append(name)

    async def race() -> None:
        await asyncio.gather(score("patient", 300, 1), score("urgent", 5, 0))

    opened.run(race())

    assert finished == ["urgent", "patient"]


def test_a_small_call_is_not_held_up_by_a_large_one(opened: Opened) -> None:
    finished = []

    async def score(name: str, count: int) -> None:
        await opened.engine.score(_prompts(count, seed=9))
        finished.append(name)

    async def race() -> None:
        await asyncio.gather(score("large", 300), score("small", 5))

    opened.run(race())

    assert finished == ["small", "large"]


def test_the_loop_turns_while_the_engine_works(opened: Opened) -> None:
    gaps = []

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - before)

    async def watch() -> None:
        ticking = asyncio.create_task(tick())
        await opened.engine.score(_prompts(300, seed=10))
        await asyncio.sleep(0.02)
        ticking.cancel()

    opened.run(watch())

    # Generous: the machine may be busy. A blocking engine is silent for seconds.
    assert max(gaps) < 0.7


def test_an_open_engine_checks_well_and_says_what_it_is(opened: Opened) -> None:
    opened.run(opened.engine.check())

    assert opened.engine.info.name in {"native", "vllm", "fake"}
    assert opened.engine.info.model == "model"
    assert opened.engine.info.max_tokens == 512


def test_a_listener_is_told_of_every_logit_while_the_call_runs(opened: Opened) -> None:
    prompts = _prompts(600, seed=21)
    told: list[tuple[int, float]] = []
    seen: set[int] = set()

    async def listen() -> list[float]:
        with heard_by(lambda place, logit: told.append((place, logit))):
            call = asyncio.create_task(opened.engine.score(prompts))
        while not call.done():
            seen.add(len(told))
            await asyncio.sleep(0)
        return await call

    logits = opened.run(listen())

    assert dict(told) == dict(enumerate(logits))
    assert len(told) == 600
    assert len(seen - {0, 600}) > 1


def test_a_listener_hears_nothing_of_a_call_that_was_cancelled(opened: Opened) -> None:
    told: list[int] = []

    async def leave() -> int:
        first = asyncio.Event()

        def listen(place: int, logit: float) -> None:
            told.append(place)
            first.set()

        with heard_by(listen):
            call = asyncio.create_task(opened.engine.score(_prompts(900, seed=22)))
        await first.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        heard = len(told)
        await opened.engine.score(_prompts(200, seed=23))
        return heard

    heard = opened.run(leave())

    assert 0 < heard < 900
    assert len(told) == heard
