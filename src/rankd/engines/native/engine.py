"""The `Engine` contract on a worker process. The server process never imports torch."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar, cast

from rankd.config.settings import Settings
from rankd.engines.base import EngineInfo, PromptsTooLarge, Slots
from rankd.engines.native import framing
from rankd.engines.native.architecture import read_architecture, refuse_quantized
from rankd.engines.native.process import WorkerConfig, WorkerProcess
from rankd.errors import EngineDown, EngineRestarting
from rankd.models.checkpoint import Checkpoint
from rankd.telemetry import metrics
from rankd.telemetry.startup import StartupStep, report_step
from rankd.types import AnswerTokenIds, Prompt

T = TypeVar("T")

# The worker computes one batch while the others wait in the pipe. The scheduler uses more than two
# slots only if the model is fast.
_SLOTS = 8

# Seconds between two pings, and seconds without an answer until the engine counts as silent. The
# worker answers in a thread of its own, so it answers while it computes, but not while stopped.
_PING_EVERY = 1.0
_SILENT = 5.0


class NativeEngine:
    """The parent side of the worker process, as an `Engine`."""

    def __init__(self, info: EngineInfo, worker: WorkerProcess) -> None:
        self.info = info
        self.slots = Slots(_SLOTS, eager=1)
        self._worker = worker
        self._replies: deque[asyncio.Future[list[float | None]]] = deque()
        self._down: EngineDown | None = None
        self._silence = 0.0
        self._progress = 0.0

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._worker.pid

    async def score(self, batch: Sequence[Prompt]) -> list[float]:
        self._refuse_if_down()
        reply = asyncio.get_running_loop().create_future()
        if not self._replies:
            self._progress = time.monotonic()
        self._replies.append(reply)
        self._worker.send(framing.pack_prompts(batch))
        # A cancelled batch is still computed, and keeps its slot until then.
        logits = await _uninterrupted(reply)
        if None in logits:
            raise PromptsTooLarge(logits)
        return cast(list[float], logits)

    async def check(self) -> None:
        self._refuse_if_down()
        if self._silence > _SILENT:
            raise EngineRestarting(
                f"the native engine has not answered for {self._silence:.0f} seconds"
            )

    def _refuse_if_down(self) -> None:
        if self._down is None and not self._worker.is_alive:
            # The task that reads the worker's replies has not noticed yet.
            raise EngineDown("the native engine's process has ended")
        if self._down is not None:
            raise EngineDown(self._down.message)

    async def receive_replies(self) -> None:
        """Pass the worker's replies to the batches, in their order, until the worker ends."""
        try:
            while True:
                logits = await self._worker.receive()
                self._progress = time.monotonic()
                reply = self._replies.popleft()
                if not reply.done():
                    reply.set_result(logits)
        except EngineDown as problem:
            self.fail(problem)
        finally:
            # After a bug or a cancellation too, no call may wait forever.
            self.fail(EngineDown("the native engine no longer reads from its process"))

    async def keep_pinging(self, limit: float) -> None:
        """Ping the worker; kill it when it has not answered for `limit` seconds."""
        while True:
            await asyncio.sleep(_PING_EVERY)
            self._silence = self._worker.silence
            stuck = time.monotonic() - self._progress if self._replies else 0.0
            if max(stuck, self._silence) > limit:
                self.fail(EngineDown(f"the native engine was silent for {limit:g} seconds"))
                self._worker.kill()
                return
            self._worker.ping()

    def fail(self, problem: EngineDown) -> None:
        """Fail all batches in flight and all later ones with the first `problem`."""
        self._down = self._down or problem
        for reply in self._replies:
            if not reply.done():
                reply.set_exception(EngineDown(self._down.message))


async def _uninterrupted(future: asyncio.Future[T]) -> T:
    """Wait for a future even if cancelled meanwhile; then raise the cancellation."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        with suppress(EngineDown):
            await future
        raise


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
    refuse_quantized(checkpoint)
    report_step(StartupStep(f"starting the native engine for {checkpoint.name}"))
    worker = await WorkerProcess.spawn(_worker_config(checkpoint, answers, settings))
    try:
        ready = await worker.wait_until_ready(partial(_report_layer, checkpoint.name))
        info = EngineInfo(
            name="native",
            model=checkpoint.name,
            revision=checkpoint.revision,
            device=ready.device,
            dtype=ready.dtype,
            dtype_reason=ready.dtype_reason,
            max_tokens=min(settings.max_tokens, checkpoint.max_tokens),
            batch_tokens=settings.batch_tokens,
            deterministic=settings.deterministic,
            arithmetic=ready.arithmetic,
        )
        engine = NativeEngine(info, worker)
        tasks = [
            asyncio.create_task(engine.receive_replies()),
            asyncio.create_task(engine.keep_pinging(settings.engine_stuck_seconds)),
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


def _report_layer(model: str, done: int, total: int) -> None:
    report_step(StartupStep(f"loading {model}", done, total, "layers"))


def _worker_config(
    checkpoint: Checkpoint, answers: AnswerTokenIds, settings: Settings
) -> WorkerConfig:
    return WorkerConfig(
        folder=str(checkpoint.path),
        weights=[str(file) for file in checkpoint.weights],
        yes=answers.yes,
        no=answers.no,
        scale=answers.scale,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        deterministic=settings.deterministic,
        log_level=settings.log_level,
        log_format=settings.log_format,
    )
