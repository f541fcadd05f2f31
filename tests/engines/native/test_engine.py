"""The parent's side, with a puppet in the place of the worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
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

INFO = EngineInfo("native", "puppet", "0", "cpu", "float32", 512)


class Puppet:
    """A worker that answers when it is told to, with the first id of each tail."""

    is_alive = True

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self._answers: asyncio.Queue[list[float] | None] = asyncio.Queue()
        self._answered = 0

    def send(self, body: bytes) -> None:
        self.sent.append([tail[0] for _, tail in framing.unpack_prompts(body).suffixes])

    async def receive(self) -> list[float]:
        answer = await self._answers.get()
        if answer is None:
            raise EngineDown("the puppet fell")
        return answer

    async def answer(self) -> None:
        """Answer the oldest batch, and let everyone hear of it."""
        self._answers.put_nowait([float(first) for first in self.sent[self._answered]])
        self._answered += 1
        await _settle()

    async def fall(self) -> None:
        self._answers.put_nowait(None)
        await _settle()


async def _settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


Scene = Callable[[Scheduler, Puppet], Coroutine[Any, Any, None]]


async def _play(scene: Scene, batch_tokens: int = 10) -> None:
    puppet = Puppet()
    engine = NativeEngine(replace(INFO, batch_tokens=batch_tokens), cast(WorkerProcess, puppet))
    listening = asyncio.create_task(engine.listen())
    await scene(Scheduler(engine), puppet)
    listening.cancel()


def _ask(
    scheduler: Scheduler, *firsts: int, length: int = 5, **options: Any
) -> asyncio.Task[list[float]]:
    prompts = [Prompt((), (first,) * length) for first in firsts]
    return asyncio.create_task(scheduler.score(prompts, **options))


async def _refused(work: Awaitable[object], error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        await work
    return str(caught.value)


async def test_calls_that_come_together_share_a_batch() -> None:
    async def scene(scheduler: Scheduler, puppet: Puppet) -> None:
        one, other = _ask(scheduler, 1), _ask(scheduler, 2)
        await _settle()
        await puppet.answer()

        assert puppet.sent == [[1, 2]]
        assert (await one, await other) == ([1.0], [2.0])

    await _play(scene)


async def test_at_most_two_batches_are_in_flight() -> None:
    async def scene(scheduler: Scheduler, puppet: Puppet) -> None:
        call = _ask(scheduler, *range(8))
        await _settle()

        assert puppet.sent == [[0, 1], [2, 3]]

        await puppet.answer()
        assert len(puppet.sent) == 3
        for _ in range(3):
            await puppet.answer()
        assert await call == [float(place) for place in range(8)]

    await _play(scene)


async def test_a_small_batch_waits_for_company_while_the_worker_is_busy() -> None:
    async def scene(scheduler: Scheduler, puppet: Puppet) -> None:
        first = _ask(scheduler, 1)
        await _settle()
        second = _ask(scheduler, 2)
        await _settle()
        third = _ask(scheduler, 3)
        await _settle()
        await puppet.answer()

        assert puppet.sent == [[1], [2, 3]]

        await puppet.answer()
        assert [await call for call in (first, second, third)] == [[1.0], [2.0], [3.0]]

    await _play(scene, batch_tokens=11)


async def test_an_urgent_call_goes_into_the_next_batch() -> None:
    async def scene(scheduler: Scheduler, puppet: Puppet) -> None:
        patient = _ask(scheduler, *range(8), priority=1)
        await _settle()
        urgent = _ask(scheduler, 100, 101, priority=0)
        await _settle()
        await puppet.answer()

        assert puppet.sent == [[0, 1], [2, 3], [100, 101]]

        patient.cancel()
        urgent.cancel()

    await _play(scene)


async def test_a_cancelled_call_is_not_computed_further() -> None:
    async def scene(scheduler: Scheduler, puppet: Puppet) -> None:
        doomed, kept = _ask(scheduler, *range(8)), None
        await _settle()
        doomed.cancel()
        kept = _ask(scheduler, 100)
        await _settle()
        for _ in range(3):
            await puppet.answer()

        assert puppet.sent == [[0, 1], [2, 3], [100]]
        assert await kept == [100.0]

    await _play(scene)


async def test_a_deadline_that_passes_ends_the_call_and_frees_its_place() -> None:
    async def scene(scheduler: Scheduler, puppet: Puppet) -> None:
        late = _ask(scheduler, *range(8), deadline=time.monotonic() + 0.02)
        await _settle()
        await puppet.answer()
        with pytest.raises(DeadlineExceeded, match="scored 2 of 8 documents in time") as caught:
            await late
        await puppet.answer()
        await puppet.answer()

        # Batches that were under way come too late and change nothing.
        assert caught.value.logits == (0.0, 1.0, *[None] * 6)
        assert len(puppet.sent) == 3

    await _play(scene)


async def test_what_a_cancelled_call_still_had_waiting_is_counted() -> None:
    async def scene(scheduler: Scheduler, puppet: Puppet) -> None:
        before = metrics.ABANDONED_DOCUMENTS._value.get()
        doomed = _ask(scheduler, *range(8))
        await _settle()
        doomed.cancel()
        await _settle()

        # Two batches of two were under way.
        assert metrics.ABANDONED_DOCUMENTS._value.get() - before == 4

    await _play(scene)


async def test_everyone_hears_when_the_worker_falls() -> None:
    async def scene(scheduler: Scheduler, puppet: Puppet) -> None:
        waiting = [_ask(scheduler, place) for place in range(5)]
        await _settle()
        await puppet.fall()

        for call in waiting:
            assert await _refused(call, EngineDown) == "the puppet fell"
        assert await _refused(scheduler.check(), EngineDown) == "the puppet fell"
        assert await _refused(_ask(scheduler, 1), EngineDown) == "the puppet fell"

    await _play(scene)


async def test_no_prompts_no_logits_and_no_waiting() -> None:
    async def scene(scheduler: Scheduler, puppet: Puppet) -> None:
        assert await scheduler.score([]) == []

    await _play(scene)


async def test_a_call_starts_when_the_worker_computes_it_not_when_it_lies_in_the_pipe() -> None:
    async def scene(scheduler: Scheduler, puppet: Puppet) -> None:
        started: list[str] = []
        calls = []
        for name in ("first", "second"):
            calls.append(_ask(scheduler, 1, 2, on_start=partial(started.append, name)))
            await _settle()

        assert len(puppet.sent) == 2
        assert started == ["first"]
        await puppet.answer()
        assert started == ["first", "second"]
        await puppet.answer()
        await asyncio.gather(*calls)

    await _play(scene)


async def test_a_cancelled_batch_keeps_its_slot_until_the_worker_has_computed_it() -> None:
    async def scene(scheduler: Scheduler, puppet: Puppet) -> None:
        doomed = [_ask(scheduler, 1, 2), _ask(scheduler, 3, 4)]
        await _settle()
        for call in doomed:
            call.cancel()
        kept = _ask(scheduler, 5, 6)
        await _settle()

        assert puppet.sent == [[1, 3], [2, 4]]

        await puppet.answer()
        assert puppet.sent == [[1, 3], [2, 4], [5, 6]]
        await puppet.answer()
        await puppet.answer()
        assert await kept == [5.0, 6.0]

    await _play(scene)
