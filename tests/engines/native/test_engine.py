"""The native engine in the server process, with a scripted worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest

from rankd.engines.base import EngineInfo
from rankd.engines.native import NativeEngine, framing
from rankd.engines.native.process import WorkerProcess
from rankd.errors import DeadlineExceeded, EngineDown
from rankd.ranking.scheduler import Scheduler
from rankd.telemetry import metrics
from rankd.types import Prompt

pytestmark = pytest.mark.anyio

INFO = EngineInfo("native", "model", "0", "cpu", "float32", 512)


class ScriptedWorker:
    """A worker that answers on request, with the first id of each suffix as its logit."""

    is_alive = True

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self._answers: asyncio.Queue[list[float] | None] = asyncio.Queue()
        self._answered = 0

    def send(self, body: bytes) -> None:
        self.sent.append([suffix[0] for _, suffix in framing.unpack_prompts(body).suffixes])

    async def receive(self) -> list[float]:
        answer = await self._answers.get()
        if answer is None:
            raise EngineDown("the worker ended")
        return answer

    async def answer(self) -> None:
        """Answer the oldest batch, and let all tasks react to it."""
        self._answers.put_nowait([float(first) for first in self.sent[self._answered]])
        self._answered += 1
        await _settle()

    async def end(self) -> None:
        """End the process."""
        self._answers.put_nowait(None)
        await _settle()


async def _settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


@asynccontextmanager
async def _scheduler(batch_tokens: int = 10) -> AsyncIterator[tuple[Scheduler, ScriptedWorker]]:
    worker = ScriptedWorker()
    info = replace(INFO, batch_tokens=batch_tokens)
    engine = NativeEngine(info, cast(WorkerProcess, worker))
    engine.slots.set(2, eager=1)  # As the scheduler uses them with a slow model.
    receiving = asyncio.create_task(engine.receive_replies())
    yield Scheduler(engine), worker
    receiving.cancel()


def _score(
    scheduler: Scheduler, *firsts: int, length: int = 5, **options: Any
) -> asyncio.Task[list[float]]:
    prompts = [Prompt((), (first,) * length) for first in firsts]
    return asyncio.create_task(scheduler.score(prompts, **options))


async def _refused(work: Awaitable[object], error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        await work
    return str(caught.value)


async def test_calls_that_come_together_share_a_batch() -> None:
    async with _scheduler() as (scheduler, worker):
        first, second = _score(scheduler, 1), _score(scheduler, 2)
        await _settle()
        await worker.answer()

        assert worker.sent == [[1, 2]]
        assert (await first, await second) == ([1.0], [2.0])


async def test_no_more_batches_are_in_flight_than_there_are_slots() -> None:
    async with _scheduler() as (scheduler, worker):
        call = _score(scheduler, *range(8))
        await _settle()

        assert worker.sent == [[0, 1], [2, 3]]

        await worker.answer()
        assert len(worker.sent) == 3
        for _ in range(3):
            await worker.answer()
        assert await call == [float(index) for index in range(8)]


async def test_a_small_batch_waits_for_more_prompts_while_the_worker_is_busy() -> None:
    async with _scheduler(batch_tokens=11) as (scheduler, worker):
        first = _score(scheduler, 1)
        await _settle()
        second = _score(scheduler, 2)
        await _settle()
        third = _score(scheduler, 3)
        await _settle()
        await worker.answer()

        assert worker.sent == [[1], [2, 3]]

        await worker.answer()
        assert [await call for call in (first, second, third)] == [[1.0], [2.0], [3.0]]


async def test_an_urgent_call_goes_into_the_next_batch() -> None:
    async with _scheduler() as (scheduler, worker):
        patient = _score(scheduler, *range(8), priority=1)
        await _settle()
        urgent = _score(scheduler, 100, 101, priority=0)
        await _settle()
        await worker.answer()

        assert worker.sent == [[0, 1], [2, 3], [100, 101]]

        patient.cancel()
        urgent.cancel()


async def test_a_cancelled_call_is_not_computed_further() -> None:
    async with _scheduler() as (scheduler, worker):
        cancelled = _score(scheduler, *range(8))
        await _settle()
        cancelled.cancel()
        kept = _score(scheduler, 100)
        await _settle()
        for _ in range(3):
            await worker.answer()

        assert worker.sent == [[0, 1], [2, 3], [100]]
        assert await kept == [100.0]


async def test_a_deadline_ends_the_call_and_drops_its_waiting_prompts() -> None:
    async with _scheduler() as (scheduler, worker):
        late = _score(scheduler, *range(8), deadline=time.monotonic() + 0.02)
        await _settle()
        await worker.answer()
        with pytest.raises(DeadlineExceeded, match="scored 2 of 8 documents in time") as caught:
            await late
        await worker.answer()
        await worker.answer()

        # The results of batches in flight arrive too late and change nothing.
        assert caught.value.logits == (0.0, 1.0, *[None] * 6)
        assert len(worker.sent) == 3


async def test_the_waiting_documents_of_a_cancelled_call_are_counted() -> None:
    async with _scheduler() as (scheduler, _):
        before = metrics.ABANDONED_DOCUMENTS._value.get()
        cancelled = _score(scheduler, *range(8))
        await _settle()
        cancelled.cancel()
        await _settle()

        # Two batches of two were in flight.
        assert metrics.ABANDONED_DOCUMENTS._value.get() - before == 4


async def test_all_calls_fail_when_the_worker_ends() -> None:
    async with _scheduler() as (scheduler, worker):
        waiting = [_score(scheduler, index) for index in range(5)]
        await _settle()
        await worker.end()

        for call in waiting:
            assert await _refused(call, EngineDown) == "the worker ended"
        assert await _refused(scheduler.check(), EngineDown) == "the worker ended"
        assert await _refused(_score(scheduler, 1), EngineDown) == "the worker ended"


async def test_a_call_without_prompts_returns_at_once() -> None:
    async with _scheduler() as (scheduler, _):
        assert await scheduler.score([]) == []


async def test_a_call_starts_when_the_worker_computes_it_not_when_it_is_sent() -> None:
    async with _scheduler() as (scheduler, worker):
        started: list[str] = []
        calls = []
        for name in ("first", "second"):
            calls.append(_score(scheduler, 1, 2, on_start=partial(started.append, name)))
            await _settle()

        assert len(worker.sent) == 2
        assert started == ["first"]
        await worker.answer()
        assert started == ["first", "second"]
        await worker.answer()
        await asyncio.gather(*calls)


async def test_a_cancelled_batch_keeps_its_slot_until_the_worker_has_computed_it() -> None:
    async with _scheduler() as (scheduler, worker):
        cancelled = [_score(scheduler, 1, 2), _score(scheduler, 3, 4)]
        await _settle()
        for call in cancelled:
            call.cancel()
        kept = _score(scheduler, 5, 6)
        await _settle()

        assert worker.sent == [[1, 3], [2, 4]]

        await worker.answer()
        assert worker.sent == [[1, 3], [2, 4], [5, 6]]
        await worker.answer()
        await worker.answer()
        assert await kept == [5.0, 6.0]
