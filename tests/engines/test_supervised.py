"""Deaths and restarts, with an engine in memory that dies when it is told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from rankd.config.settings import Settings
from rankd.context import REQUEST_ID
from rankd.engines import supervised as module
from rankd.engines.base import EngineInfo, Slots
from rankd.engines.supervised import Opening, SupervisedEngine, open_supervised
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
INFO = EngineInfo("mortal", "puppet", "0", "cpu", "float32", 512)


class Mortal:
    """Scores a prompt by its first id; one that begins with `POISON` kills it."""

    def __init__(self) -> None:
        self.info = INFO
        self.slots = Slots(2, eager=1)
        self.running = 0
        self.at_once: list[int] = []
        self.scored: list[int] = []
        self.batches: list[list[int]] = []
        self.mute = False
        self._died = asyncio.Event()

    def die(self) -> None:
        self._died.set()

    async def check(self) -> None:
        if self._died.is_set():
            raise EngineDown("the puppet fell")

    async def score(self, batch: Sequence[Prompt]) -> list[float]:
        await self.check()
        firsts = [prompt.suffix[0] for prompt in batch]
        self.batches.append(firsts)
        self.running += 1
        self.at_once.append(self.running)
        try:
            for _ in range(4):
                await asyncio.sleep(0.002)
                await (self.check() if not self.mute else asyncio.sleep(60))
            if POISON in firsts:
                self.die()
            await self.check()
        finally:
            self.running -= 1
        self.scored.extend(firsts)
        return [float(first) for first in firsts]


class Stage:
    """Opens mortals, and remembers them; what stands in `fates` happens to the next ones."""

    def __init__(self) -> None:
        self.lives: list[Mortal] = []
        self.fates: list[Exception | asyncio.Event] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Mortal]:
        if self.lives and self.fates:
            fate = self.fates.pop(0)
            if isinstance(fate, Exception):
                raise fate
            await fate.wait()
        self.lives.append(Mortal())
        yield self.lives[-1]
        self.lives[-1].die()


Scene = Callable[[Scheduler, Stage], Coroutine[Any, Any, None]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(module, "_LOOK_EVERY", 0.01)


@asynccontextmanager
async def _scheduler(opening: Opening, settings: Settings) -> AsyncIterator[Scheduler]:
    async with (
        open_supervised(opening, AnswerTokenIds(1, 2), settings) as engine,
        open_scheduler(engine, patience=settings.engine_wait_seconds) as scheduler,
    ):
        yield scheduler


async def _play(scene: Scene, **settings: Any) -> Stage:
    stage = Stage()
    async with _scheduler(stage.open, Settings(engine="fake", **settings)) as scheduler:
        await asyncio.wait_for(scene(scheduler, stage), 60)
    return stage


def _ask(scheduler: Scheduler, first: int, **options: Any) -> asyncio.Task[list[float]]:
    return asyncio.create_task(scheduler.score([Prompt((), (first, 0))], **options))


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


async def _all(calls: Sequence[asyncio.Task[list[float]]]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_calls_in_flight_at_a_death_are_answered() -> None:
    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        calls = [_ask(scheduler, first) for first in range(20, 40)]
        await asyncio.sleep(0.004)
        stage.lives[0].die()

        assert await _all(calls) == [[float(first)] for first in range(20, 40)]

    assert len((await _play(scene)).lives) == 2


async def test_an_engine_that_dies_without_a_word_to_its_calls_holds_nobody_up() -> None:
    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        stage.lives[0].mute = True
        calls = [_ask(scheduler, first) for first in range(20, 24)]
        await asyncio.sleep(0.01)
        stage.lives[0].die()

        assert await _all(calls) == [[float(first)] for first in range(20, 24)]

    await _play(scene)


async def test_a_suspect_whose_turn_never_comes_does_not_wait_for_ever() -> None:
    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        calls = [_ask(scheduler, first) for first in (20, 21)]
        await asyncio.sleep(0.004)
        stage.lives[0].die()
        await _until(lambda: len(stage.lives) == 2 and len(stage.lives[1].batches) == 2)
        stage.fates.append(asyncio.Event())
        stage.lives[1].die()  # While the first is run again, and the second waits.

        assert [type(answer) for answer in await _all(calls)] == [PoisonRequest, EngineRestarting]

    await _play(scene, engine_wait_seconds=1)


async def test_only_the_request_that_kills_alone_is_refused_by_its_id() -> None:
    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        REQUEST_ID.set("the-culprit")
        culprit = _ask(scheduler, POISON)
        REQUEST_ID.set("an-innocent")
        answers = await _all([*(_ask(scheduler, first) for first in range(20, 30)), culprit])

        assert answers[:-1] == [[float(first)] for first in range(20, 30)]
        assert isinstance(answers[-1], PoisonRequest)
        assert "the-culprit" in answers[-1].message

    assert len((await _play(scene)).lives) == 3


async def test_two_culprits_are_both_found() -> None:
    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        calls = [_ask(scheduler, first) for first in (20, POISON, 21)]
        other = asyncio.create_task(scheduler.score([Prompt((), (POISON, 9))]))
        answers = await _all([*calls, other])

        assert [type(answer) for answer in answers] == [list, PoisonRequest, list, PoisonRequest]

        assert await _ask(scheduler, 22) == [22.0]

    assert len((await _play(scene)).lives) == 4


async def test_suspects_run_one_at_a_time_and_newcomers_wait() -> None:
    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        suspects = [_ask(scheduler, first) for first in range(20, 26)]
        await asyncio.sleep(0.004)
        stage.lives[0].die()
        await asyncio.sleep(0)
        newcomers = [_ask(scheduler, first) for first in range(30, 36)]
        await _all([*suspects, *newcomers])

        probe, *scored = stage.lives[1].scored
        assert probe == 2
        assert scored == [*range(20, 26), *range(30, 36)]
        assert stage.lives[1].batches == [[2], *([one] for one in range(20, 26)), [*range(30, 36)]]
        assert max(stage.lives[1].at_once) == 1

    await _play(scene)


async def test_a_death_before_a_call_is_not_its_fault() -> None:
    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        stage.lives[0].die()
        calls = [_ask(scheduler, first) for first in range(20, 26)]

        assert await _all(calls) == [[float(first)] for first in range(20, 26)]
        assert stage.lives[1].batches == [[2], [*range(20, 26)]]  # No call was a suspect.

    await _play(scene)


async def test_a_known_culprit_costs_no_further_life() -> None:
    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        first, again = [(await _all([_ask(scheduler, POISON)]))[0] for _ in range(2)]
        assert isinstance(first, PoisonRequest)
        assert isinstance(again, PoisonRequest)
        assert await _ask(scheduler, 20) == [20.0]

    assert len((await _play(scene)).lives) == 3


async def test_a_culprit_is_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "POISON_SECONDS", 0.05)

    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        await _all([_ask(scheduler, POISON)])
        await asyncio.sleep(0.1)
        await _all([_ask(scheduler, POISON)])
        await _ask(scheduler, 20)

    assert len((await _play(scene)).lives) == 5


async def test_a_deadline_holds_while_the_engine_is_away() -> None:
    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        back = asyncio.Event()
        stage.fates.append(back)
        in_flight = _ask(scheduler, 20, deadline=time.monotonic() + 0.2)
        await asyncio.sleep(0.004)
        stage.lives[0].die()
        late = _ask(scheduler, 21, deadline=time.monotonic() + 0.1)
        patient = _ask(scheduler, 22)
        problems = await _all([in_flight, late])

        assert [type(problem) for problem in problems] == [DeadlineExceeded] * 2
        back.set()
        assert await patient == [22.0]

    await _play(scene)


async def test_a_suspect_that_is_cancelled_holds_nobody_up() -> None:
    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        back = asyncio.Event()
        stage.fates.append(back)
        suspects = [_ask(scheduler, first) for first in (20, 21, 22)]
        await asyncio.sleep(0.004)
        stage.lives[0].die()
        await asyncio.sleep(0.05)
        suspects[0].cancel()
        await asyncio.sleep(0)
        back.set()
        answers = await _all(suspects)

        assert isinstance(answers[0], asyncio.CancelledError)
        assert answers[1:] == [[21.0], [22.0]]
        assert 20 not in stage.lives[1].scored

    await _play(scene)


async def test_an_engine_that_stays_away_is_a_503_to_be_tried_again() -> None:
    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        back = asyncio.Event()
        stage.fates.append(back)
        await scheduler.check()
        in_flight = _ask(scheduler, 20)
        await asyncio.sleep(0.004)
        stage.lives[0].die()
        with pytest.raises(EngineRestarting):
            await scheduler.check()
        assert REGISTRY.get_sample_value("rankd_engine_up") == 0
        began = time.monotonic()
        problems = await _all([in_flight, _ask(scheduler, 21)])
        assert 0.5 < time.monotonic() - began < 30
        late = (await _all([_ask(scheduler, 22)]))[0]

        for problem in (*problems, late):
            assert isinstance(problem, EngineRestarting)
            assert problem.retry_after
            assert problem.retry_after >= 1
        back.set()
        await _until(lambda: len(stage.lives) == 2 and stage.lives[1].scored != [])
        await asyncio.sleep(0.02)
        await scheduler.check()
        assert REGISTRY.get_sample_value("rankd_engine_up") == 1
        assert await _ask(scheduler, 23) == [23.0]

    await _play(scene, engine_wait_seconds=1)


async def test_a_start_that_fails_is_tried_again() -> None:
    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        # SetupError is ours; a library may raise anything.
        stage.fates += [SetupError("no memory"), KeyError("a bug"), OSError("no process")]
        call = _ask(scheduler, 20)
        await asyncio.sleep(0.004)
        stage.lives[0].die()

        assert await call == [20.0]

    assert len((await _play(scene)).lives) == 2


async def test_an_engine_that_does_not_answer_the_probe_takes_no_calls() -> None:
    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        call = _ask(scheduler, 20)
        await asyncio.sleep(0.004)
        stage.lives[0].die()
        await _until(lambda: len(stage.lives) == 2)
        stage.lives[1].die()

        assert await call == [20.0]
        assert stage.lives[1].scored == []

    assert len((await _play(scene)).lives) == 3


async def test_a_crash_loop_ends_in_a_sentence() -> None:
    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        stage.fates += [SetupError("the disk is gone")] * 9
        call = _ask(scheduler, 20)
        await asyncio.sleep(0.004)
        stage.lives[0].die()
        [problem] = await _all([call])
        with pytest.raises(EngineDown) as caught:
            await scheduler.check()

        for one in (problem, caught.value):
            assert type(one) is EngineDown
            assert one.retry_after  # Whoever started the server starts it again.
            assert one.message == (
                "the engine died 4 times in 5 minutes, at last because the disk is gone"
            )
        assert len(stage.fates) == 9 - 3

    await _play(scene, engine_restarts=3)


async def test_deaths_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 0.1)

    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        for life in range(4):
            stage.lives[life].die()
            assert await _ask(scheduler, 20) == [20.0]
            await asyncio.sleep(0.15)

    assert len((await _play(scene, engine_restarts=1)).lives) == 5


async def test_no_restarts_end_at_the_first_death() -> None:
    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        call = _ask(scheduler, 20)
        await asyncio.sleep(0.004)
        stage.lives[0].die()
        [problem] = await _all([call])
        with pytest.raises(EngineDown, match="the puppet fell") as caught:
            await scheduler.check()

        assert type(problem) is type(caught.value) is EngineDown
        assert problem.message == "the puppet fell"

    assert len((await _play(scene, engine_restarts=0)).lives) == 1


async def test_pauses_grow_and_are_bounded() -> None:
    async def scene(scheduler: Scheduler, stage: Stage) -> None:
        pauses = []
        supervised = scheduler.engine
        assert isinstance(supervised, SupervisedEngine)
        for _ in range(60):
            supervised._deaths.append(time.monotonic())
            pauses.append([supervised._delay() for _ in range(20)])

        assert set(pauses[0]) == {0.0}
        for repeated in (1, 2, 3, 4):
            longest = 0.01 * 2 ** (repeated - 1)
            assert all(longest / 2 <= pause <= longest for pause in pauses[repeated])
            assert len(set(pauses[repeated])) > 1
        assert max(pauses[-1]) <= 30

    await _play(scene)


async def test_closing_is_no_death(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    async with _scheduler(stage.open, Settings(engine="fake")) as scheduler:
        call = _ask(scheduler, 20)
        await asyncio.sleep(0.004)
    [problem] = await _all([call])

    assert len(stage.lives) == 1
    assert isinstance(problem, RankError)
    assert problem.message == "the server is stopping"
    assert not caplog.records


async def test_the_first_start_is_not_tried_again() -> None:
    @asynccontextmanager
    async def opening() -> AsyncIterator[Mortal]:
        raise SetupError("no such model")
        yield

    with pytest.raises(SetupError, match="no such model"):
        async with open_supervised(opening, AnswerTokenIds(1, 2), Settings(engine="fake")):
            pytest.fail("it opened")


@pytest.mark.parametrize("deterministic", [True, False])
async def test_bits_that_are_promised_do_not_change_with_a_restart(deterministic: bool) -> None:
    class Drifting(Stage):
        @asynccontextmanager
        async def open(self) -> AsyncIterator[Mortal]:
            async with super().open() as life:
                threads = f"{len(self.lives)} threads"
                life.info = replace(INFO, deterministic=deterministic, arithmetic=threads)
                yield life

    stage = Drifting()
    settings = Settings(engine="fake", engine_restarts=2)
    async with _scheduler(stage.open, settings) as scheduler:
        stage.lives[0].die()
        [answer] = await _all([_ask(scheduler, 20)])

    if deterministic:
        assert isinstance(answer, EngineDown)
        assert "would compute by 3 threads, and began by 1 threads" in answer.message
    else:
        assert answer == [20.0]
