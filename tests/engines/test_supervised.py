"""Crashes and restarts, with a scripted engine in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from rankd.config.settings import Settings
from rankd.context import REQUEST_ID
from rankd.engines import supervised
from rankd.engines.base import EngineInfo, Slots
from rankd.engines.supervised import OpenEngine, SupervisedEngine, open_supervised
from rankd.errors import (
    DeadlineExceeded,
    EngineDown,
    EngineRestarting,
    PoisonRequest,
    RankError,
    SetupError,
)
from rankd.ranking import scheduler as scheduling
from rankd.ranking.scheduler import Scheduler, open_scheduler
from rankd.types import AnswerTokenIds, Prompt

pytestmark = pytest.mark.anyio

POISON = 13
INFO = EngineInfo("scripted", "model", "0", "cpu", "float32", 512)


class ScriptedEngine:
    """Scores a prompt by the first id of its suffix; `POISON` as the first id kills the engine.

    Attributes:
        running: batches in flight.
        max_running: highest number of batches in flight.
        scored: first ids of all prompts scored, in order.
        batches: first ids of each batch received.
        hangs: after a crash, batches in flight get no error.
    """

    def __init__(self) -> None:
        self.info = INFO
        self.slots = Slots(2, eager=1)
        self.running = 0
        self.max_running = 0
        self.scored: list[int] = []
        self.batches: list[list[int]] = []
        self.hangs = False
        self._crashed = asyncio.Event()

    def crash(self) -> None:
        self._crashed.set()

    async def check(self) -> None:
        if self._crashed.is_set():
            raise EngineDown("the engine crashed")

    async def score(self, batch: Sequence[Prompt]) -> list[float]:
        await self.check()
        firsts = [prompt.suffix[0] for prompt in batch]
        self.batches.append(firsts)
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            for _ in range(4):
                await asyncio.sleep(0.002)
                await (self.check() if not self.hangs else asyncio.sleep(60))
            if POISON in firsts:
                self.crash()
            await self.check()
        finally:
            self.running -= 1
        self.scored.extend(firsts)
        return [float(first) for first in firsts]


class Engines:
    """Opens engines.

    Attributes:
        opened: all engines, in the order of their starts.
        restarts: what the next restarts do: raise an error, or wait for an event.
    """

    def __init__(self) -> None:
        self.opened: list[ScriptedEngine] = []
        self.restarts: list[Exception | asyncio.Event] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[ScriptedEngine]:
        if self.opened and self.restarts:
            restart = self.restarts.pop(0)
            if isinstance(restart, Exception):
                raise restart
            await restart.wait()
        engine = ScriptedEngine()
        self.opened.append(engine)
        yield engine
        engine.crash()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(supervised, "_CHECK_EVERY", 0.01)


@asynccontextmanager
async def _scheduler(open_engine: OpenEngine, settings: Settings) -> AsyncIterator[Scheduler]:
    async with (
        open_supervised(open_engine, AnswerTokenIds(1, 2), settings) as engine,
        open_scheduler(engine, patience=settings.engine_wait_seconds) as scheduler,
    ):
        yield scheduler


@asynccontextmanager
async def _supervised(
    engines: Engines | None = None, **settings: Any
) -> AsyncIterator[tuple[Scheduler, Engines]]:
    """A scheduler on a supervised engine; a test that hangs fails after 60 seconds."""
    engines = engines or Engines()
    async with (
        _scheduler(engines.open, Settings(engine="fake", **settings)) as scheduler,
        asyncio.timeout(60),
    ):
        yield scheduler, engines


def _score(scheduler: Scheduler, first: int, **options: Any) -> asyncio.Task[list[float]]:
    return asyncio.create_task(scheduler.score([Prompt((), (first, 0))], **options))


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


async def _all(calls: Sequence[asyncio.Task[list[float]]]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_calls_in_flight_at_a_crash_are_answered() -> None:
    async with _supervised() as (scheduler, engines):
        calls = [_score(scheduler, first) for first in range(20, 40)]
        await asyncio.sleep(0.004)
        engines.opened[0].crash()

        assert await _all(calls) == [[float(first)] for first in range(20, 40)]

    assert len(engines.opened) == 2


async def test_calls_are_answered_even_if_the_crashed_engine_never_ends_them() -> None:
    async with _supervised() as (scheduler, engines):
        engines.opened[0].hangs = True
        calls = [_score(scheduler, first) for first in range(20, 24)]
        await asyncio.sleep(0.01)
        engines.opened[0].crash()

        assert await _all(calls) == [[float(first)] for first in range(20, 24)]


async def test_a_call_to_be_repeated_fails_if_the_engine_does_not_come_back() -> None:
    async with _supervised(engine_wait_seconds=1) as (scheduler, engines):
        calls = [_score(scheduler, first) for first in (20, 21)]
        await asyncio.sleep(0.004)
        engines.opened[0].crash()
        await _until(lambda: len(engines.opened) == 2 and len(engines.opened[1].batches) == 2)
        engines.restarts.append(asyncio.Event())
        engines.opened[1].crash()  # The first is scored again, the second waits.

        assert [type(answer) for answer in await _all(calls)] == [PoisonRequest, EngineRestarting]


async def test_only_the_request_that_kills_the_engine_alone_is_refused_by_its_id() -> None:
    async with _supervised() as (scheduler, engines):
        token = REQUEST_ID.set("poison-id")
        poison = _score(scheduler, POISON)
        REQUEST_ID.reset(token)
        answers = await _all([*(_score(scheduler, first) for first in range(20, 30)), poison])

        assert answers[:-1] == [[float(first)] for first in range(20, 30)]
        assert isinstance(answers[-1], PoisonRequest)
        assert "poison-id" in answers[-1].message

    assert len(engines.opened) == 3


async def test_two_poison_requests_are_both_found() -> None:
    async with _supervised() as (scheduler, engines):
        calls = [_score(scheduler, first) for first in (20, POISON, 21)]
        other = asyncio.create_task(scheduler.score([Prompt((), (POISON, 9))]))
        answers = await _all([*calls, other])

        assert [type(answer) for answer in answers] == [list, PoisonRequest, list, PoisonRequest]

        assert await _score(scheduler, 22) == [22.0]

    assert len(engines.opened) == 4


async def test_suspects_are_scored_one_by_one_and_new_calls_wait() -> None:
    async with _supervised() as (scheduler, engines):
        suspects = [_score(scheduler, first) for first in range(20, 26)]
        await asyncio.sleep(0.004)
        engines.opened[0].crash()
        await asyncio.sleep(0)
        newcomers = [_score(scheduler, first) for first in range(30, 36)]
        await _all([*suspects, *newcomers])

        probe, *scored = engines.opened[1].scored
        assert probe == 2
        assert scored == [*range(20, 26), *range(30, 36)]
        assert engines.opened[1].batches == [
            [2],
            *([first] for first in range(20, 26)),
            [*range(30, 36)],
        ]
        assert engines.opened[1].max_running == 1


async def test_a_call_is_not_suspected_of_an_earlier_crash() -> None:
    async with _supervised() as (scheduler, engines):
        engines.opened[0].crash()
        calls = [_score(scheduler, first) for first in range(20, 26)]

        assert await _all(calls) == [[float(first)] for first in range(20, 26)]
        # As suspects, they would be scored one by one.
        assert engines.opened[1].batches == [[2], [*range(20, 26)]]


async def test_a_known_poison_request_is_refused_without_a_crash() -> None:
    async with _supervised() as (scheduler, engines):
        first, again = [(await _all([_score(scheduler, POISON)]))[0] for _ in range(2)]
        assert isinstance(first, PoisonRequest)
        assert isinstance(again, PoisonRequest)
        assert await _score(scheduler, 20) == [20.0]

    assert len(engines.opened) == 3


async def test_a_poison_request_is_tried_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduling, "POISON_SECONDS", 0.05)

    async with _supervised() as (scheduler, engines):
        await _all([_score(scheduler, POISON)])
        await asyncio.sleep(0.1)
        await _all([_score(scheduler, POISON)])
        await _score(scheduler, 20)

    assert len(engines.opened) == 5


async def test_deadlines_end_calls_while_the_engine_restarts() -> None:
    async with _supervised() as (scheduler, engines):
        back = asyncio.Event()
        engines.restarts.append(back)
        in_flight = _score(scheduler, 20, deadline=time.monotonic() + 0.2)
        await asyncio.sleep(0.004)
        engines.opened[0].crash()
        late = _score(scheduler, 21, deadline=time.monotonic() + 0.1)
        patient = _score(scheduler, 22)
        problems = await _all([in_flight, late])

        assert [type(problem) for problem in problems] == [DeadlineExceeded] * 2
        back.set()
        assert await patient == [22.0]


async def test_a_cancelled_suspect_is_not_scored_again() -> None:
    async with _supervised() as (scheduler, engines):
        back = asyncio.Event()
        engines.restarts.append(back)
        suspects = [_score(scheduler, first) for first in (20, 21, 22)]
        await asyncio.sleep(0.004)
        engines.opened[0].crash()
        await asyncio.sleep(0.05)
        suspects[0].cancel()
        await asyncio.sleep(0)
        back.set()
        answers = await _all(suspects)

        assert isinstance(answers[0], asyncio.CancelledError)
        assert answers[1:] == [[21.0], [22.0]]
        assert 20 not in engines.opened[1].scored


async def test_calls_fail_with_retry_after_if_the_restart_takes_too_long() -> None:
    async with _supervised(engine_wait_seconds=1) as (scheduler, engines):
        back = asyncio.Event()
        engines.restarts.append(back)
        await scheduler.check()
        in_flight = _score(scheduler, 20)
        await asyncio.sleep(0.004)
        engines.opened[0].crash()
        with pytest.raises(EngineRestarting):
            await scheduler.check()
        assert REGISTRY.get_sample_value("rankd_engine_up") == 0
        began = time.monotonic()
        problems = await _all([in_flight, _score(scheduler, 21)])
        assert 0.5 < time.monotonic() - began < 60
        late = (await _all([_score(scheduler, 22)]))[0]

        for problem in (*problems, late):
            assert isinstance(problem, EngineRestarting)
            assert problem.retry_after
            assert problem.retry_after >= 1
        back.set()
        await _until(lambda: len(engines.opened) == 2 and engines.opened[1].scored != [])
        await asyncio.sleep(0.02)
        await scheduler.check()
        assert REGISTRY.get_sample_value("rankd_engine_up") == 1
        assert await _score(scheduler, 23) == [23.0]


async def test_a_restart_that_fails_is_repeated() -> None:
    async with _supervised() as (scheduler, engines):
        # SetupError is ours; a library may raise anything.
        engines.restarts += [SetupError("no memory"), KeyError("a bug"), OSError("no process")]
        call = _score(scheduler, 20)
        await asyncio.sleep(0.004)
        engines.opened[0].crash()

        assert await call == [20.0]

    assert len(engines.opened) == 2


async def test_an_engine_that_fails_the_probe_gets_no_calls() -> None:
    async with _supervised() as (scheduler, engines):
        call = _score(scheduler, 20)
        await asyncio.sleep(0.004)
        engines.opened[0].crash()
        await _until(lambda: len(engines.opened) == 2)
        engines.opened[1].crash()

        assert await call == [20.0]
        assert engines.opened[1].scored == []

    assert len(engines.opened) == 3


async def test_a_crash_loop_ends_with_the_last_reason() -> None:
    async with _supervised(engine_restarts=3) as (scheduler, engines):
        engines.restarts += [SetupError("the disk is gone")] * 9
        call = _score(scheduler, 20)
        await asyncio.sleep(0.004)
        engines.opened[0].crash()
        [problem] = await _all([call])
        with pytest.raises(EngineDown) as caught:
            await scheduler.check()

        for error in (problem, caught.value):
            assert type(error) is EngineDown
            assert error.retry_after  # A process manager restarts the server.
            assert error.message == (
                "the engine died 4 times in 5 minutes; last reason: the disk is gone"
            )
        assert len(engines.restarts) == 9 - 3


async def test_crashes_outside_the_window_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "WINDOW", 0.1)

    async with _supervised(engine_restarts=1) as (scheduler, engines):
        for index in range(4):
            engines.opened[index].crash()
            assert await _score(scheduler, 20) == [20.0]
            await asyncio.sleep(0.15)

    assert len(engines.opened) == 5


async def test_with_no_restarts_the_first_crash_is_final() -> None:
    async with _supervised(engine_restarts=0) as (scheduler, engines):
        call = _score(scheduler, 20)
        await asyncio.sleep(0.004)
        engines.opened[0].crash()
        [problem] = await _all([call])
        with pytest.raises(EngineDown, match="the engine crashed") as caught:
            await scheduler.check()

        assert type(problem) is type(caught.value) is EngineDown
        assert problem.message == "the engine crashed"

    assert len(engines.opened) == 1


async def test_delays_grow_up_to_a_limit() -> None:
    async with _supervised() as (scheduler, _):
        delays = []
        engine = scheduler.engine
        assert isinstance(engine, SupervisedEngine)
        for _ in range(60):
            engine._crashes.append(time.monotonic())
            delays.append([engine._delay() for _ in range(20)])

        assert set(delays[0]) == {0.0}
        for repeated in (1, 2, 3, 4):
            longest = 0.01 * 2 ** (repeated - 1)
            assert all(longest / 2 <= delay <= longest for delay in delays[repeated])
            assert len(set(delays[repeated])) > 1
        assert max(delays[-1]) <= 30


async def test_closing_does_not_count_as_a_crash(caplog: pytest.LogCaptureFixture) -> None:
    async with _supervised() as (scheduler, engines):
        call = _score(scheduler, 20)
        await asyncio.sleep(0.004)

    [problem] = await _all([call])

    assert len(engines.opened) == 1
    assert isinstance(problem, RankError)
    assert problem.message == "the server is stopping"
    assert not caplog.records


async def test_the_first_start_is_not_repeated() -> None:
    starts = []

    @asynccontextmanager
    async def open_engine() -> AsyncIterator[ScriptedEngine]:
        starts.append(time.monotonic())
        raise SetupError("no such model")
        yield

    with pytest.raises(SetupError, match="no such model"):
        async with open_supervised(open_engine, AnswerTokenIds(1, 2), Settings(engine="fake")):
            pytest.fail("it opened")

    assert len(starts) == 1


class _EnginesWithOtherThreads(Engines):
    """Each engine computes with one thread more than the one before."""

    def __init__(self, *, deterministic: bool) -> None:
        super().__init__()
        self._deterministic = deterministic

    @asynccontextmanager
    async def open(self) -> AsyncIterator[ScriptedEngine]:
        async with super().open() as engine:
            threads = f"{len(self.opened)} threads"
            engine.info = replace(INFO, deterministic=self._deterministic, arithmetic=threads)
            yield engine


@pytest.mark.parametrize("deterministic", [True, False])
async def test_a_deterministic_engine_must_restart_with_the_same_arithmetic(
    deterministic: bool,
) -> None:
    other_threads = _EnginesWithOtherThreads(deterministic=deterministic)
    async with _supervised(other_threads, engine_restarts=2) as (scheduler, engines):
        engines.opened[0].crash()
        [answer] = await _all([_score(scheduler, 20)])

    if deterministic:
        assert isinstance(answer, EngineDown)
        assert "computes with 3 threads, the first one with 1 threads" in answer.message
    else:
        assert answer == [20.0]
