"""The engine contract, kept by a child process: torch is never imported here."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

from rankd.config.settings import Settings
from rankd.engines.base import EngineInfo
from rankd.engines.native import framing
from rankd.engines.native.architecture import read_architecture
from rankd.engines.native.process import WorkerConfig, WorkerProcess
from rankd.engines.native.queue import Queue, QueuedCall
from rankd.errors import DeadlineExceeded, EngineDown, EngineRestarting, TooLarge
from rankd.models.checkpoint import Checkpoint
from rankd.telemetry import metrics
from rankd.telemetry.startup import StartupStep, report_step
from rankd.types import AnswerTokenIds, Prompt

# One batch is computed while the next lies ready in the pipe; more would only make
# priorities and cancellations act later.
IN_FLIGHT = 2

# Seconds between two pings, and without an answer before probes are told. A thread of the
# worker's own answers, so that arithmetic is no silence; a stopped process is.
_PING_EVERY = 1.0
_SILENT = 5.0

Batch = list[tuple[QueuedCall, int]]


class NativeEngine:
    def __init__(self, info: EngineInfo, worker: WorkerProcess, batch_tokens: int) -> None:
        self.info = info
        self._worker = worker
        self._batch_tokens = batch_tokens
        self._queue = Queue(slice_tokens=batch_tokens // 2)
        self._calls: dict[QueuedCall, asyncio.Future[None]] = {}
        self._in_flight: deque[Batch] = deque()
        self._feeding = False
        self._down: EngineDown | None = None
        self._silence = 0.0
        self._progress = 0.0

    @property
    def pid(self) -> int:
        """The worker's process."""
        return self._worker.pid

    async def score(
        self, prompts: Sequence[Prompt], *, priority: int = 0, deadline: float | None = None
    ) -> list[float]:
        self._refuse_if_down()
        if not prompts:
            return []
        call = QueuedCall(prompts, priority)
        timeout = None if deadline is None else deadline - time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                await self._answered(call)
        except TimeoutError:
            raise DeadlineExceeded(call.logits) from None
        return cast(list[float], call.logits)

    async def check(self) -> None:
        self._refuse_if_down()
        if self._silence > _SILENT:
            raise EngineRestarting(
                f"the native engine has not answered for {self._silence:.0f} seconds"
            )

    def _refuse_if_down(self) -> None:
        if self._down is None and not self._worker.is_alive:
            # Seen before the reader task came to its turn.
            raise EngineDown("the native engine's process has ended")
        if self._down is not None:
            raise EngineDown(self._down.message)

    async def _answered(self, call: QueuedCall) -> None:
        future = asyncio.get_running_loop().create_future()
        self._calls[call] = future
        self._queue.add(call)
        self._feed_soon()
        try:
            await future
        except asyncio.CancelledError:
            # The client left, or it is too late: what still waits is never computed.
            metrics.ABANDONED_DOCUMENTS.inc(call.waiting)
            raise
        finally:
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
            if len(self._in_flight) == 1:
                self._begin()
            self._worker.send(framing.pack_prompts([call.prompts[place] for call, place in batch]))

    def _begin(self) -> None:
        """The worker computes the oldest batch from now on; others lie ready in the pipe."""
        self._progress = time.monotonic()
        for call in {call for call, _ in self._in_flight[0]}:
            if call.waiter is not None:
                call.waiter.begin()

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
                metrics.BATCH_SECONDS.observe(time.monotonic() - self._progress)
                batch = self._in_flight.popleft()
                if self._in_flight:
                    self._begin()
                self._feed()
                self._deliver(batch, logits)
        except EngineDown as problem:
            self.fail(problem)
        finally:
            # Only a bug comes here otherwise, and nobody shall wait for ever because of it.
            self.fail(EngineDown("the native engine no longer listens to its process"))

    async def keep_asking(self, limit: float) -> None:
        """Ping the worker for ever; kill it when it answers nothing for `limit` seconds."""
        while True:
            await asyncio.sleep(_PING_EVERY)
            self._silence = self._worker.silence
            stuck = time.monotonic() - self._progress if self._in_flight else 0.0
            if max(stuck, self._silence) > limit:
                self.fail(EngineDown(f"the native engine was silent for {limit:g} seconds"))
                self._worker.kill()
                return
            self._worker.ping()

    def _deliver(self, batch: Batch, logits: list[float | None]) -> None:
        _count(batch)
        for (call, place), logit in zip(batch, logits, strict=True):
            if logit is None:
                self._lacks_memory(call, place)
                continue
            call.logits[place] = logit
            call.unanswered -= 1
            if call.listener is not None and call in self._calls:
                call.listener(place, logit)
            if not call.unanswered:
                self._resolve(call)

    def _resolve(self, call: QueuedCall) -> None:
        future = self._calls.get(call)
        if future is not None and not future.done():
            future.set_result(None)

    def _lacks_memory(self, call: QueuedCall, place: int) -> None:
        future = self._calls.get(call)
        if future is not None and not future.done():
            message = (
                f"a document of {len(call.prompts[place]):,} tokens, template included, does "
                f"not fit in the memory that {self.info.device} has left; send shorter documents"
            )
            future.set_exception(TooLarge(message, param="documents"))

    def fail(self, problem: EngineDown) -> None:
        """Answer everyone who waits, and everyone who will come, with the first reason."""
        self._down = self._down or problem
        for future in self._calls.values():
            if not future.done():
                future.set_exception(EngineDown(self._down.message))


def _count(batch: Batch) -> None:
    """As the worker computes it: a head once for all its pairs."""
    prompts = [call.prompts[place] for call, place in batch]
    heads = {id(prompt.prefix): len(prompt.prefix) for prompt in prompts}
    metrics.BATCH_PAIRS.observe(len(prompts))
    metrics.BATCH_TOKENS.observe(sum(heads.values()) + sum(len(one.suffix) for one in prompts))


@asynccontextmanager
async def open_engine(
    checkpoint: Checkpoint, answers: AnswerTokenIds, settings: Settings
) -> AsyncIterator[NativeEngine]:
    """Start the worker and wait until its model is loaded.

    Raises:
        BadModel: the checkpoint cannot be computed here, or its weights are wrong.
        SetupError: the worker cannot start: no torch, no such device, no memory.
    """
    read_architecture(checkpoint.config)
    report_step(StartupStep(f"starting the native engine for {checkpoint.name}"))
    worker = await WorkerProcess.spawn(_job(checkpoint, answers, settings))
    try:
        ready = await worker.wait_until_ready(partial(_tell, checkpoint.name))
        info = EngineInfo(
            name="native",
            model=checkpoint.name,
            revision=checkpoint.revision,
            device=ready.device,
            dtype=ready.dtype,
            max_tokens=min(settings.max_tokens, checkpoint.max_tokens),
            deterministic=settings.deterministic,
            arithmetic=ready.arithmetic,
        )
        engine = NativeEngine(info, worker, settings.batch_tokens)
        tasks = [
            asyncio.create_task(engine.listen()),
            asyncio.create_task(engine.keep_asking(settings.engine_stuck_seconds)),
        ]
        metrics.ENGINE_PROCESS.pid = worker.pid
        try:
            yield engine
        finally:
            metrics.ENGINE_PROCESS.pid = None
            engine.fail(EngineDown("the native engine is closed"))
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    finally:
        await worker.close()


def _tell(model: str, done: int, total: int) -> None:
    report_step(StartupStep(f"loading {model}", done, total, "layers"))


def _job(checkpoint: Checkpoint, answers: AnswerTokenIds, settings: Settings) -> WorkerConfig:
    return WorkerConfig(
        folder=str(checkpoint.path),
        weights=[str(file) for file in checkpoint.weights],
        yes=answers.yes,
        no=answers.no,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        deterministic=settings.deterministic,
        log_level=settings.log_level,
        log_format=settings.log_format,
    )
