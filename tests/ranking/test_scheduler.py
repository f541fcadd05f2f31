"""The scheduler over an engine whose speed and slots the test decides."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from rankd.engines.base import EngineInfo, Slots
from rankd.errors import EngineDown, EngineRestarting, InternalError, TooLarge
from rankd.ranking.scheduler import Scheduler, Speed
from rankd.types import Prompt

pytestmark = pytest.mark.anyio

INFO = EngineInfo("paced", "m", "0", "cpu", "float32", 512, batch_tokens=10)
PROMPT = Prompt((), (1,) * 10)


class PacedEngine:
    """Computes each batch in a fixed time: all batches in flight at once, or one after another.

    Attributes:
        most: batches that were in flight at the same time.
    """

    def __init__(self, seconds: float, slots: int = 8, *, serial: bool = False) -> None:
        self.info = INFO
        self.slots = Slots(slots, eager=slots)
        self.seconds = seconds
        self.most = 0
        self.batches: list[int] = []
        self.problem: Exception | None = None
        self._running = 0
        self._turns = asyncio.Semaphore(1 if serial else slots)

    async def score(self, batch: Sequence[Prompt]) -> list[float]:
        self._running += 1
        self.most = max(self.most, self._running)
        self.batches.append(len(batch))
        try:
            async with self._turns:
                await asyncio.sleep(self.seconds)
        finally:
            self._running -= 1
        if self.problem is not None and any(prompt.suffix[0] == 13 for prompt in batch):
            raise self.problem
        return [float(prompt.suffix[0]) for prompt in batch]

    async def check(self) -> None:
        if not self.slots.count:
            raise EngineRestarting("it restarts")


async def test_a_slow_engine_has_two_batches_in_flight_so_that_newcomers_wait_for_no_more() -> None:
    engine = PacedEngine(seconds=0.05, serial=True)
    scheduler = Scheduler(engine)

    await scheduler.score([PROMPT] * 12)

    assert engine.most == 2


async def test_a_fast_engine_gets_as_many_batches_as_it_has_slots() -> None:
    engine = PacedEngine(seconds=0.001)
    scheduler = Scheduler(engine)

    await scheduler.score([PROMPT] * 200)

    assert engine.most == 8


async def test_slots_that_come_and_go_are_used_and_left() -> None:
    engine = PacedEngine(seconds=0.001, slots=2)
    scheduler = Scheduler(engine)
    await scheduler.score([PROMPT] * 50)
    assert engine.most == 2

    engine.slots.set(4, eager=4)
    await scheduler.score([PROMPT] * 200)
    assert engine.most == 4

    engine.slots.set(0, eager=0)
    waiting = asyncio.create_task(scheduler.score([PROMPT] * 3))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    engine.slots.set(1, eager=1)
    assert await waiting == [1.0] * 3


async def test_an_error_of_a_shared_batch_is_only_of_the_call_that_causes_it() -> None:
    engine = PacedEngine(seconds=0.001, slots=1)
    engine.info = EngineInfo("paced", "m", "0", "cpu", "float32", 512, batch_tokens=1000)
    engine.problem = InternalError("no number")
    scheduler = Scheduler(engine)
    calls = [scheduler.score([Prompt((), (first,) * 10)]) for first in (1, 13, 2)]

    first, bad, second = await asyncio.gather(*calls, return_exceptions=True)

    assert (first, second) == ([1.0], [2.0])
    assert isinstance(bad, InternalError)
    assert engine.batches == [3, 1, 1, 1]


async def test_an_engine_that_refuses_a_batch_although_it_has_slots_fails_the_call() -> None:
    engine = PacedEngine(seconds=0.001)
    engine.problem = EngineRestarting("not now")

    with pytest.raises(EngineRestarting, match="not now"):
        await Scheduler(engine).score([Prompt((), (13,))])


async def test_closing_ends_calls_that_wait_and_calls_that_are_computed() -> None:
    engine = PacedEngine(seconds=60, slots=1)
    scheduler = Scheduler(engine)
    calls = [asyncio.create_task(scheduler.score([PROMPT])) for _ in range(3)]
    await asyncio.sleep(0.01)

    scheduler.close()

    for problem in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(problem, EngineDown)
        assert not isinstance(problem, TooLarge)


def test_the_speed_is_that_of_the_recent_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("rankd.ranking.scheduler.time.monotonic", lambda: now)
    speed = Speed()
    for _ in range(50):
        now += 1.0
        speed.add(1000, sent=now - 2.0)  # One second of the two it was behind another batch.
    assert speed.tokens_per_second == pytest.approx(1000, rel=0.02)

    for _ in range(50):
        now += 0.1
        speed.add(1000, sent=now - 0.1)
    assert speed.tokens_per_second == pytest.approx(10_000, rel=0.05)
