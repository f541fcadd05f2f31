"""Each engine on a small random checkpoint, with a scheduler that uses it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rankd.config.settings import Settings
from rankd.engines import open_engine
from rankd.engines.base import Engine
from rankd.models.checkpoint import Checkpoint, locate
from rankd.ranking.scheduler import Scheduler, open_scheduler
from rankd.types import AnswerTokenIds, Prompt
from support.checkpoints import NO, YES, make_checkpoint

Result = TypeVar("Result")

ENGINES = [
    *("native", "fake"),
    pytest.param("vllm", marks=pytest.mark.vllm),
    pytest.param("ray", marks=pytest.mark.ray),
]


@dataclass(frozen=True)
class Opened:
    """An engine, a scheduler that uses it, and their event loop."""

    engine: Engine
    scheduler: Scheduler
    runner: asyncio.Runner

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    def score(self, prompts: list[Prompt]) -> list[float]:
        return self.run(self.scheduler.score(prompts))


@contextmanager
def opened_engine(name: Any, folder: Path) -> Iterator[Opened]:
    # vLLM needs a tokenizer for "yes" and "no", and on CPUs a head dimension of at least 32.
    checkpoint = locate(str(make_checkpoint(folder / "model", head_dim=32)))
    settings = Settings(engine=name, device="cpu", max_tokens=512, batch_tokens=256)
    with _replicas(checkpoint, settings) if name == "ray" else nullcontext():
        yield from _opened(checkpoint, settings)


@contextmanager
def _replicas(checkpoint: Checkpoint, settings: Settings) -> Iterator[None]:
    """Two replicas of the native engine on a Ray cluster."""
    from rankd.server.replica import build
    from support.ray_cluster import deployed, shared_cluster

    shared_cluster()
    values = settings.model_dump(exclude_unset=True) | {"model": str(checkpoint.path)}
    actor = {"num_cpus": 1}
    with deployed(build(values, num_replicas=2, ray_actor_options=actor), settings.ray_app):
        yield


def _opened(checkpoint: Checkpoint, settings: Settings) -> Iterator[Opened]:

    @asynccontextmanager
    async def open_both() -> Any:
        async with (
            open_engine(checkpoint, AnswerTokenIds(YES, NO), settings) as engine,
            open_scheduler(engine, patience=30) as scheduler,
        ):
            yield engine, scheduler

    with asyncio.Runner() as runner:
        context = open_both()
        engine, scheduler = runner.run(context.__aenter__())
        yield Opened(engine, scheduler, runner)
        runner.run(context.__aexit__(None, None, None))


def random_prompts(count: int, seed: int = 0) -> list[Prompt]:
    """One request: a shared prefix, and suffixes of many lengths with similar tokens."""
    dice = random.Random(seed)
    prefix = tuple(dice.randrange(151_000) for _ in range(20))
    return [
        Prompt(prefix, tuple(dice.choice(prefix) + dice.randrange(3) for _ in range(length)))
        for length in (dice.randrange(1, 60) for _ in range(count))
    ]
