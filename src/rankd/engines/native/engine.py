"""The engine contract, kept by a child process: torch is never imported here."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rankd.checkpoint import Checkpoint
from rankd.engines.base import EngineInfo
from rankd.engines.native import wire
from rankd.engines.native.process import Job, Worker
from rankd.engines.native.queue import Call, Queue
from rankd.engines.native.shape import read_shape
from rankd.errors import DeadlineExceeded, EngineDown
from rankd.settings import Settings
from rankd.types import Answers, Prompt

# One batch is computed while the next lies ready in the pipe; more would only make
# priorities and cancellations act later.
IN_FLIGHT = 2

Batch = list[tuple[Call, int]]


class NativeEngine:
    def __init__(self, info: EngineInfo, worker: Worker, batch_tokens: int) -> None:
        self.info = info
        self._worker = worker
        self._batch_tokens = batch_tokens
        self._queue = Queue()
        self._calls: dict[Call, asyncio.Future[None]] = {}
        self._in_flight: deque[Batch] = deque()
        self._feeding = False
        self._down: EngineDown | None = None

    @property
    def pid(self) -> int:
        """The worker's process."""
        return self._worker.pid

    async def score(
        self, prompts: Sequence[Prompt], *, priority: int = 0, deadline: float | None = None
    ) -> list[float]:
        await self.check()
        if not prompts:
            return []
        call = Call(prompts, priority)
        timeout = None if deadline is None else deadline - time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                await self._answered(call)
        except TimeoutError:
            scored = len(prompts) - call.unanswered
            raise DeadlineExceeded(f"scored {scored} of {len(prompts)} documents in time") from None
        return call.logits

    async def check(self) -> None:
        if self._down is None and not self._worker.is_alive:
            # Seen before the reader task came to its turn.
            raise EngineDown("the native engine's process has ended")
        if self._down is not None:
            raise EngineDown(self._down.message)

    async def _answered(self, call: Call) -> None:
        future = asyncio.get_running_loop().create_future()
        self._calls[call] = future
        self._queue.add(call)
        self._feed_soon()
        try:
            await future
        finally:
            # Cancelled or too late: what still waits is never computed.
            self._queue.drop(call)
            self._calls.pop(call, None)

    def _feed_soon(self) -> None:
        """Feed once per turn of the loop, so that calls that arrive together share a batch."""
        if not self._feeding:
            self._feeding = True
            asyncio.get_running_loop().call_soon(self._feed)

    def _feed(self) -> None:
        self._feeding = False
        while self._down is None and self._wants_batch():
            batch = self._queue.next_batch(self._batch_tokens)
            if not batch:
                return
            self._in_flight.append(batch)
            self._worker.send(wire.pack_prompts([call.prompts[place] for call, place in batch]))

    def _wants_batch(self) -> bool:
        """An idle worker takes anything; a busy one only a full batch, others wait for company."""
        if not self._in_flight:
            return True
        return len(self._in_flight) < IN_FLIGHT and self._queue.tokens >= self._batch_tokens

    async def listen(self) -> None:
        """Hand out what the worker answers, until it ends."""
        try:
            while True:
                logits = await self._worker.receive()
                batch = self._in_flight.popleft()
                self._feed()
                self._deliver(batch, logits)
        except EngineDown as problem:
            self.fail(problem)
        finally:
            # Only a bug comes here otherwise, and nobody shall wait for ever because of it.
            self.fail(EngineDown("the native engine no longer listens to its process"))

    def _deliver(self, batch: Batch, logits: list[float]) -> None:
        for (call, place), logit in zip(batch, logits, strict=True):
            call.logits[place] = logit
            call.unanswered -= 1
            if not call.unanswered:
                self._resolve(call)

    def _resolve(self, call: Call) -> None:
        future = self._calls.get(call)
        if future is not None and not future.done():
            future.set_result(None)

    def fail(self, problem: EngineDown) -> None:
        """Answer everyone who waits, and everyone who will come, with the first reason."""
        self._down = self._down or problem
        for future in self._calls.values():
            if not future.done():
                future.set_exception(EngineDown(self._down.message))


@asynccontextmanager
async def open_engine(
    checkpoint: Checkpoint, answers: Answers, settings: Settings
) -> AsyncIterator[NativeEngine]:
    """Start the worker and wait until its model is loaded.

    Raises:
        BadModel: the checkpoint cannot be computed here, or its weights are wrong.
        SetupError: the worker cannot start: no torch, no such device, no memory.
    """
    read_shape(checkpoint.config)
    worker = await Worker.spawn(_job(checkpoint, answers, settings))
    try:
        ready = await worker.hello()
        info = EngineInfo(
            name="native",
            model=checkpoint.name,
            revision=checkpoint.revision,
            device=ready.device,
            dtype=ready.dtype,
            max_tokens=min(settings.max_tokens, checkpoint.max_tokens),
        )
        engine = NativeEngine(info, worker, settings.batch_tokens)
        listening = asyncio.create_task(engine.listen())
        try:
            yield engine
        finally:
            engine.fail(EngineDown("the native engine is closed"))
            listening.cancel()
            await asyncio.wait([listening])
    finally:
        await worker.close()


def _job(checkpoint: Checkpoint, answers: Answers, settings: Settings) -> Job:
    return Job(
        folder=str(checkpoint.path),
        weights=[str(file) for file in checkpoint.weights],
        yes=answers.yes,
        no=answers.no,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
    )
