"""Crashes of a real worker: killed, stopped, out of memory, killed by a request."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rankd.config.settings import Settings
from rankd.engines import native, open_engine
from rankd.engines.native import engine as native_engine
from rankd.engines.native.process import WorkerConfig, WorkerProcess
from rankd.errors import EngineDown, EngineRestarting, PoisonRequest, TooLarge
from rankd.models.checkpoint import locate
from rankd.ranking.scheduler import Scheduler, open_scheduler
from rankd.types import AnswerTokenIds, Prompt
from support.checkpoints import NO, YES, make_checkpoint
from support.deadly import make_deadly
from support.servers import family

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ANSWERS = AnswerTokenIds(YES, NO)
# Generous limits, for busy machines.
SETTINGS = Settings(engine="native", device="cpu", threads=1, engine_wait_seconds=200)

# A token id that kills the worker.
DEADLY = 4711


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("supervised") / "model", tokenizer=False)


@asynccontextmanager
async def _scheduler(folder: Path, settings: Settings = SETTINGS) -> AsyncIterator[Scheduler]:
    """A scheduler on a real engine; afterwards no worker may be left."""
    async with (
        open_engine(locate(str(folder)), ANSWERS, settings) as engine,
        open_scheduler(engine, patience=settings.engine_wait_seconds) as scheduler,
        asyncio.timeout(280),
    ):
        yield scheduler
    assert _workers() == []


def _workers() -> list[int]:
    """Running worker processes of this test process."""
    children = family(os.getpid())[1:]
    return [
        pid for pid in children if b"native.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def _kill(signal_number: signal.Signals = signal.SIGKILL) -> None:
    for pid in _workers():
        os.kill(pid, signal_number)


def _requests(count: int, documents: int = 30) -> list[list[Prompt]]:
    rng = random.Random(7)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5000, 151_000) for _ in range(length))

    return [
        [Prompt(prefix, ids(rng.randrange(20, 120))) for _ in range(documents)]
        for prefix in (ids(20) for _ in range(count))
    ]


async def _until_restarting(scheduler: Scheduler) -> EngineRestarting:
    while True:
        try:
            await scheduler.check()
        except EngineRestarting as problem:
            return problem
        await asyncio.sleep(0.01)


async def _until_ready(scheduler: Scheduler) -> None:
    while True:
        try:
            return await scheduler.check()
        except EngineRestarting:
            await asyncio.sleep(0.02)


async def test_requests_in_flight_when_the_worker_is_killed_get_right_scores(folder: Path) -> None:
    requests = _requests(12, documents=80)

    async with _scheduler(folder) as scheduler:
        expected = [await scheduler.score(request) for request in requests]
        for _ in range(3):
            calls = [asyncio.create_task(scheduler.score(request)) for request in requests]
            await asyncio.sleep(0.05)
            assert not all(call.done() for call in calls)
            _kill()
            await _until_restarting(scheduler)
            answers = await asyncio.gather(*calls)
            await scheduler.check()
            for answer, logits in zip(answers, expected, strict=True):
                assert answer == pytest.approx(logits, abs=1e-4)


async def test_a_restarted_worker_computes_in_the_number_format_of_the_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    spawn = WorkerProcess.spawn

    async def noted(config: WorkerConfig) -> Any:
        asked.append(config.dtype)
        return await spawn(config)

    monkeypatch.setattr(WorkerProcess, "spawn", noted)
    async with _scheduler(folder) as scheduler:
        [request] = _requests(1, documents=2)
        before = await scheduler.score(request)
        _kill()
        await _until_restarting(scheduler)
        after = await scheduler.score(request)

    assert asked == ["auto", "float32"]
    assert after == pytest.approx(before, abs=1e-4)


async def test_a_worker_killed_too_often_is_not_restarted(folder: Path) -> None:
    async with _scheduler(folder, SETTINGS.model_copy(update={"engine_restarts": 2})) as scheduler:
        for _ in range(2):
            _kill()
            await _until_restarting(scheduler)
            await _until_ready(scheduler)
        _kill()
        call = asyncio.create_task(scheduler.score(_requests(1)[0]))
        with pytest.raises(EngineDown) as caught:
            await call

        assert not isinstance(caught.value, EngineRestarting)
        assert "the engine died 3 times in 5 minutes" in caught.value.message
        assert "killed by SIGKILL" in caught.value.message or "has ended" in caught.value.message


async def test_of_many_requests_only_the_deadly_one_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_deadly(DEADLY, tmp_path, monkeypatch)
    requests = _requests(8, documents=10)
    deadly = [*requests[3], Prompt(requests[3][0].prefix, (5, DEADLY, 6))]

    async with _scheduler(folder) as scheduler:
        expected = [await scheduler.score(request) for request in requests]
        calls = [
            asyncio.create_task(scheduler.score(request))
            for request in (*requests[:4], deadly, *requests[4:])
        ]
        answers: list[Any] = await asyncio.gather(*calls, return_exceptions=True)

        assert isinstance(answers.pop(4), PoisonRequest)
        for answer, logits in zip(answers, expected, strict=True):
            assert answer == pytest.approx(logits, abs=1e-4)


async def test_a_stopped_worker_is_not_ready_until_it_continues(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_engine, "_PING_EVERY", 0.1)
    monkeypatch.setattr(native_engine, "_SILENT", 0.5)

    async with _scheduler(folder) as scheduler:
        _kill(signal.SIGSTOP)
        assert "has not answered for" in (await _until_restarting(scheduler)).message
        call = asyncio.create_task(scheduler.score(_requests(1)[0]))
        await asyncio.sleep(0.1)
        _kill(signal.SIGCONT)

        await _until_ready(scheduler)
        assert len(await call) == 30


async def test_a_worker_that_stays_stopped_is_replaced_and_its_requests_are_answered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_engine, "_PING_EVERY", 0.1)
    settings = SETTINGS.model_copy(update={"engine_stuck_seconds": 3})

    async with _scheduler(folder, settings) as scheduler:
        [request] = _requests(1)
        expected = await scheduler.score(request)
        before = _workers()
        _kill(signal.SIGSTOP)

        assert await scheduler.score(request) == pytest.approx(expected, abs=1e-4)
        assert not set(before) & set(_workers())


async def test_a_worker_that_computes_for_long_is_not_restarted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_engine, "_PING_EVERY", 0.05)
    monkeypatch.setattr(native_engine, "_SILENT", 2.0)

    async with _scheduler(
        folder, SETTINGS.model_copy(update={"batch_tokens": 150_000})
    ) as scheduler:
        before = _workers()
        call = asyncio.create_task(scheduler.score(_requests(1, documents=4000)[0]))
        while not call.done():
            await scheduler.check()
            await asyncio.sleep(0.02)

        assert len(await call) == 4000
        assert _workers() == before


async def test_a_batch_that_does_not_fit_in_memory_is_split(folder: Path) -> None:
    [many] = _requests(1, documents=60)
    long = [Prompt((1,), (7,) * 16_000)]
    settings = SETTINGS.model_copy(update={"batch_tokens": 20_000, "max_tokens": 20_000})

    async with (
        native.open_engine(locate(str(folder)), ANSWERS, settings) as engine,
        asyncio.timeout(280),
    ):
        scheduler = Scheduler(engine)
        expected = await scheduler.score(many[:2])
        _limit_memory(engine.pid, 24)
        split = asyncio.create_task(scheduler.score(many))
        with pytest.raises(TooLarge, match="a document of 16,001 tokens"):
            await scheduler.score(long)

        assert (await split)[:2] == pytest.approx(expected, abs=1e-4)
        assert await scheduler.score(many[:2]) == pytest.approx(expected, abs=1e-4)


def _limit_memory(pid: int, megabytes: int) -> None:
    """Let the process allocate only this much more than it has now."""
    [size] = [
        int(line.split()[1]) * 1024
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmSize")
    ]
    limit = size + megabytes * 2**20
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
