"""Replicas for tests: they sleep instead of computing, and a token kills them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankd.server.replica import ScoringReplica, application
from rankd.types import Prompt

# A document that contains it kills the replica that scores it.
POISON = 7_654


class SleepingReplica(ScoringReplica):
    """The fake engine's scores, at a certain number of tokens per second.

    Args:
        values: settings; `log_format` is not one that it uses.
        rate: tokens per second.
        folder: each batch leaves a file in it when it begins, and one when it is abandoned.
    """

    async def __init__(  # type: ignore[misc]
        self, values: Mapping[str, Any], rate: float, folder: str
    ) -> None:
        await super().__init__(values)
        self._rate = rate
        self._folder = Path(folder)

    async def _answer(self, prompts: Sequence[Prompt]) -> bytes:
        if any(POISON in prompt.suffix for prompt in prompts):
            os.kill(os.getpid(), signal.SIGKILL)
        (self._folder / f"began-{os.getpid()}-{id(prompts)}").touch()
        try:
            await asyncio.sleep(sum(map(len, prompts)) / self._rate)
        except asyncio.CancelledError:
            (self._folder / f"abandoned-{os.getpid()}-{id(prompts)}").touch()
            raise
        return await super()._answer(prompts)


def sleeping(folder: Path, rate: float = 50_000, **options: Any) -> Any:
    """The application of sleeping replicas."""
    values = {"engine": "fake", "log_level": "debug"}
    options = {"ray_actor_options": {"num_cpus": 1}, **options}
    return application(SleepingReplica, options, values, rate, str(folder))
